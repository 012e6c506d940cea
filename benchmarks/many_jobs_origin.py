"""python -m benchmarks.many_jobs_origin PORT JOBS: an upstream whose jobs move when it is told to.

`GET /__step` moves each job to its next stage; `GET /__asked` says how many statuses it was asked
for: by the gateway itself, and for its clients. It has no streams.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

STAGES = ("Queued", "Downloading", "Transcribing", "Analyzing", "Finding highlights")


def job_id(number: int) -> str:
    """The id of a job."""
    return f"bench-{number}"


class Upstream:
    """The jobs, and who asked for them."""

    def __init__(self, jobs: int) -> None:
        self._jobs = [job_id(number) for number in range(jobs)]
        self._step = 0
        self._asked = {"by_gateway": 0, "for_clients": 0}

    def answer(self, head: bytes) -> tuple[int, object]:
        """The status and document for a request's head."""
        path = head.split(b" ", 2)[1].decode()
        if path == "/__step":
            self._step += 1
            return 200, {"step": self._step}
        if path == "/__asked":
            return 200, self._asked
        if path.endswith("/jobs"):
            return 200, {"jobs": [self._document(each) for each in self._jobs]}
        if not path.endswith("/status"):
            return 404, {"detail": "not here"}
        # The gateway asks for itself too as it passes requests on: under its own name.
        lines = head.lower().split(b"\r\n")
        forwarded = [line for line in lines if line.startswith(b"x-forwarded-for:")]
        is_clients = bool(forwarded) and not forwarded[0].endswith(b" gateway")
        self._asked["for_clients" if is_clients else "by_gateway"] += 1
        return 200, self._document(path.split("/")[-2])

    def _document(self, name: str) -> dict[str, object]:
        stage = STAGES[self._step % len(STAGES)]
        progress = {"current_stage": stage, "percentage": min(99, self._step), "total_stages": 7}
        return {"job_id": name, "video_id": name, "status": stage, "progress": progress}


class Client(asyncio.Protocol):
    """Answers heads without bodies."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape alone
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for head in heads:
            status, document = self._upstream.answer(head)
            body = json.dumps(document).encode()
            self._transport.write(
                b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (status, len(body), body)
            )


async def _serve(port: int, jobs: int) -> None:
    upstream = Upstream(jobs)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(upstream), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
