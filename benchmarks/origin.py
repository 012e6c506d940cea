"""python -m benchmarks.origin PORT: an upstream that costs next to nothing.

Every path gets the same 702-byte JSON status: a completed job, cacheable below
`/api/v1/analysis/`, `no-store` elsewhere. Below `/stream/` a stream of events that stays silent.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import cast

import uvloop

JOB_ID = "0b8f6f0e-5a3d-4e7b-9a55-6f1d2c3b4a59"
STATUS_PATH = f"/api/v1/analysis/{JOB_ID}/status"
PLAIN_PATH = f"/api/v1/plain/{JOB_ID}"
STREAM_PATH = f"/stream/{JOB_ID}"
BODY_BYTES = 702


def body() -> bytes:
    """A completed job's status, padded to `BODY_BYTES`."""
    document = {
        "status": "success",
        "job_id": JOB_ID,
        "video_id": "2434635255",
        "progress": {"percentage": 100.0, "current_stage": "Completed", "stages_completed": 7},
        "created_at": "2026-01-01T00:00:00",
        "note": "",
    }
    document["note"] = "x" * (BODY_BYTES - len(json.dumps(document)))
    return json.dumps(document).encode()


def answer(cache_control: str) -> bytes:
    """A whole response."""
    made = format_datetime(datetime.now(UTC), usegmt=True)
    head = (
        f"HTTP/1.1 200 OK\r\ndate: {made}\r\nserver: uvicorn\r\ncontent-type: application/json\r\n"
        f"cache-control: {cache_control}\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
    )
    return head.encode() + body()


class Origin(asyncio.Protocol):
    """Answers without parsing more than it must: the load sends heads without bodies."""

    stored = answer("max-age=3600")
    plain = answer("no-store")
    stream = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
        b"11\r\nevent: connected\n\r\n8\r\ndata: {}\r\n2\r\n\n\n\r\n"
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape alone
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for head in heads:
            if b" /stream/" in head:
                self._transport.write(self.stream)
            elif b" /api/v1/analysis/" in head:
                self._transport.write(self.stored)
            else:
                self._transport.write(self.plain)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
