"""A receiver as a process of its own: answers 204 at once and remembers when each event came.

`python -m benchmarks.delivery.receiver CORE` prints its port; a line on stdin ends it, and then it
prints `{"<webhook-id>": [epoch seconds, ...]}`.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections import defaultdict
from typing import cast

import orjson
import uvloop

_HEAD = re.compile(rb"(?i)^(content-length|webhook-id): *([^\r]*)\r$", re.MULTILINE)
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Receiver(asyncio.Protocol):
    """Keep-alive HTTP/1.1, of POSTs with a Content-Length alone."""

    def __init__(self, received: dict[str, list[float]]) -> None:
        self._received = received
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            fields = {
                found[1].lower(): found[2] for found in _HEAD.finditer(self._buffer[: end + 2])
            }
            whole = end + 4 + int(fields[b"content-length"])
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            self._received[fields[b"webhook-id"].decode()].append(time.time())
            self._transport.write(_ANSWER)


async def _serve() -> None:
    received: dict[str, list[float]] = defaultdict(list)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Receiver(received), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    sys.stdout.buffer.write(orjson.dumps(received) + b"\n")


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    uvloop.run(_serve())
