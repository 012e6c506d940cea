"""A job API that costs little: `python -m benchmarks.watch.upstream PORT JOBS SECONDS`.

Each job moves to another stage every SECONDS, all of them evenly spread; a stage is named after
when it began, epoch seconds. `GET /__asked` says how many requests of which kind came in which
second.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from typing import cast

import orjson
import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class Api:
    """The jobs, and what was asked of them."""

    def __init__(self, count: int, period: float, started_at: float) -> None:
        self._period = period
        self._started_at = started_at
        self._numbers = {f"job-{number}": number for number in range(count)}
        self._asked: dict[str, Counter[int]] = {"status": Counter(), "list": Counter()}

    def answer(self, path: str) -> bytes:
        """The body of the answer to a GET."""
        if path == "/__asked":
            asked = {kind: dict(seconds) for kind, seconds in self._asked.items()}
            return orjson.dumps(asked, option=orjson.OPT_NON_STR_KEYS)
        now = time.time()
        if path == "/jobs":
            self._asked["list"][int(now)] += 1
            jobs = [self.job(job_id, now) for job_id in self._numbers]
            return orjson.dumps({"jobs": jobs})
        self._asked["status"][int(now)] += 1
        return orjson.dumps(self.job(path.removeprefix("/jobs/"), now))

    def job(self, job_id: str, now: float) -> dict[str, object]:
        """How a job stands."""
        phase = self._numbers[job_id] / len(self._numbers) * self._period
        first = self._started_at + phase
        since = first + (now - first) // self._period * self._period
        return {"id": job_id, "status": "running", "stage": f"{since:.3f}", "percentage": 50.0}


class _Connection(asyncio.Protocol):
    def __init__(self, api: Api) -> None:
        self._api = api
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for head in heads:
            body = self._api.answer(head.split(b" ", 2)[1].decode())
            self._transport.write(_HEAD % (len(body), body))


async def _serve(port: int, api: Api) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(api), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), Api(int(sys.argv[2]), float(sys.argv[3]), time.time())))
