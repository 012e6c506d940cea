"""python -m benchmarks.job_origin PORT: an upstream with one job that runs on and on.

It lists the job, says how it stands, and streams it: an event each `PERIOD_SECONDS` that says in
`at` when it was made (nanoseconds of the monotonic clock, which processes of a machine share).
`GET /__streams` says how many streams are open.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

from benchmarks.origin import JOB_ID

STREAM_PATH = f"/api/v1/analysis/{JOB_ID}/stream"
PERIOD_SECONDS = 0.25
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Story:
    """The job's events, and who streams them."""

    def __init__(self) -> None:
        self.listeners: set[asyncio.Transport] = set()
        self._count = 0

    async def run(self) -> None:
        """Tell an event at a time."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            self._count += 1
            chunk = framed(event("progress", self.document(), at=time.monotonic_ns()))
            for transport in list(self.listeners):
                transport.write(chunk)

    def document(self) -> dict[str, object]:
        """How the job stands."""
        stage = f"Stage {self._count // 90}"
        progress = {"percentage": self._count % 90, "current_stage": stage, "total_stages": 7}
        return {
            "job_id": JOB_ID,
            "video_id": "2434635255",
            "status": stage,
            "progress": progress,
            "message": "Processing: " + "x" * 300,  # as long as the real ones
        }


class Client(asyncio.Protocol):
    """Answers heads without bodies."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape alone
        self._rest = b""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        self._story.listeners.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for head in heads:
            path = head.split(b" ", 2)[1]
            if path.endswith(b"/stream"):
                self._transport.write(_HEAD + framed(event("connected", {"job_id": JOB_ID})))
                self._story.listeners.add(self._transport)
            elif path.endswith(b"/jobs"):
                self._answer({"jobs": [self._story.document()]})
            elif path.endswith(b"/__streams"):
                self._answer({"streams": len(self._story.listeners)})
            else:
                self._answer(self._story.document())

    def _answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )


def event(name: str, document: dict[str, object], **more: object) -> bytes:
    """A server-sent event."""
    data = json.dumps({"event": name, **document, **more})
    return f"event: {name}\ndata: {data}\n\n".encode()


def framed(data: bytes) -> bytes:
    """A chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _serve(port: int) -> None:
    story = Story()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(story), "127.0.0.1", port, backlog=4096)
    async with server:
        await story.run()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
