"""An upstream with one job whose stream says what a test tells it to, when it does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.app.gateway import Gateway
from gateway.core.credential import format_key, hash_key
from gateway.settings.load import load, load_policies
from tests.support.system import eventually

ROOT = Path(__file__).parents[2]
JOB_ID = "3bc7adc7-dbe4-4021-ad61-9c0ab0b6dc8b"
STREAM = f"/api/v1/analysis/{JOB_ID}/stream"
KEY = format_key(b"a-key-for-streams-in-tests")
OTHER_KEY = format_key(b"another-owner-of-streams!!")


def event(name: str, **fields: Any) -> bytes:
    """An event as the upstream writes it."""
    data = json.dumps({"event": name, "job_id": JOB_ID, **fields})
    return f"event: {name}\ndata: {data}\n\n".encode()


def progress(percentage: float, stage: str = "Transcribing") -> bytes:
    """How the job stands."""
    return event("progress", progress={"percentage": percentage, "current_stage": stage})


def completed() -> bytes:
    """The job's end, with results, so that nobody need ask for the details."""
    shown = {"percentage": 100.0, "current_stage": "Completed"}
    return event("completed", progress=shown, results={"video_url": "gs://x"})


CONNECTED = event("connected")
ENDED = event("stream_ended", final_status="Completed")


class Tale:
    """The upstream; each of its open streams gets what is told."""

    def __init__(self) -> None:
        self.opened = 0
        self.requests: list[web.Request] = []
        self.status: dict[str, Any] = {"percentage": 1.0, "current_stage": "Downloading"}
        self._streams: dict[asyncio.Queue[bytes | None], web.Request] = {}

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def tell(self, *events: bytes) -> None:
        """Say this on every open stream."""
        for stream in self._streams:
            for each in events:
                stream.put_nowait(each)

    def end(self) -> None:
        """End every open stream in order."""
        for stream in self._streams:
            stream.put_nowait(None)

    def kill(self) -> None:
        """Break every open stream off."""
        for request in self._streams.values():
            assert request.transport is not None
            request.transport.abort()

    async def followed(self, count: int = 1) -> None:
        """Once so many streams are open."""

        async def are_open() -> bool:
            return self.open_streams == count

        await eventually(f"{count} streams are open", are_open)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        document = {"job_id": JOB_ID, "video_id": "1", "progress": self.status}
        if request.path.endswith("/stream"):
            return await self._stream(request)
        if request.path == "/api/v1/jobs":
            return web.json_response({"jobs": []})
        return web.json_response(document)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self.opened += 1
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        told: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._streams[told] = request
        try:
            await response.write(CONNECTED)
            while (piece := await told.get()) is not None:
                await response.write(piece)
        except ConnectionError:
            pass  # its reader is gone, or the test broke it off
        finally:
            del self._streams[told]
        return response


@asynccontextmanager
async def telling(
    folder: Path, *, policies: dict[str, Any] | None = None, **jobs: Any
) -> AsyncIterator[tuple[Tale, Gateway, int, int]]:
    """The upstream, a whole gateway before it in this process, and its public and admin ports."""
    tale = Tale()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", tale.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        loopback = {"host": "127.0.0.1", "port": 0}
        shipped = yaml.safe_load((ROOT / "gateway.yaml").read_text())["jobs"]
        shipped["watch"] = {"poll": {"min": "20ms", "max": "5s"}, **jobs.pop("watch", {})}
        settings = {
            "server": {
                "public": {**loopback},
                "admin": {**loopback},
                "drain_timeout": "1s",
                "drain_delay": "0s",
            },
            "upstream": {"url": str(server.make_url("")).rstrip("/")},
            "store": {"sqlite": {"path": str(folder / "gateway.db")}},
            "jobs": {**shipped, **jobs},
        }
        file = folder / "gateway.yaml"
        file.write_text(yaml.safe_dump(settings))
        directory = folder / "policies"
        directory.mkdir()
        entries = [
            _entry("streams", "one", KEY, ["jobs:read", "jobs:write"]),
            _entry("others", "two", OTHER_KEY, ["jobs:read"]),
        ]
        files: dict[str, Any] = {
            "auth": {"entries": entries},
            "rate_limits": {"enabled": False},
            "validation": {"enabled": False},
            **(policies or {}),
        }
        for name, policy in files.items():
            (directory / f"{name}.yaml").write_text(yaml.safe_dump(policy))
        gateway = Gateway(load(file, {}), load_policies(directory))
        ports = await gateway.start()
        try:
            yield tale, gateway, ports["public"], ports["admin"]
        finally:
            await gateway.stop()


def _entry(name: str, owner: str, key: str, scopes: list[str]) -> dict[str, Any]:
    return {"id": name, "hash": f"sha256:{hash_key(key)}", "owner": owner, "scopes": scopes}
