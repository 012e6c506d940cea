"""An upstream that remembers what came, byte by byte, and answers as the test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from aiohttp import web
from multidict import CIMultiDict

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request as the upstream got it."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes


class Echo:
    """An upstream that remembers what came and answers as the test says."""

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        self.answer: Answer | None = None
        self.reads = True
        self._runner: web.ServerRunner | None = None
        self.port = 0

    @property
    def last(self) -> Arrived:
        return self.arrived[-1]

    @property
    def forwarded(self) -> list[Arrived]:
        """What came for a client; the gateway asks things of its own, too."""
        return [each for each in self.arrived if "X-Forwarded-For" in each.headers]

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None), shutdown_timeout=1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        # Not `read()`, which has a limit of its own.
        parts = [part async for part in request.content.iter_any()] if self.reads else []
        body = b"".join(parts)
        headers = CIMultiDict(request.headers)
        self.arrived.append(Arrived(request.method, request.raw_path, headers, body))
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(body=body, headers={"X-Upstream": "echo"})
