"""Twenty receivers of one process: half of them well, the others each ill in a way of its own.

An ill one misbehaves at a share of its requests, one in three unless told otherwise, and takes the
message at another attempt; so whatever never comes was lost by the sender.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from aiohttp import web

COUNT = 20
SICK_SHARE = 1 / 3
_OK = 204
_HANG_SECONDS = 2.0


async def _fails(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500)


async def _hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(_HANG_SECONDS)  # by then the sender has given up
    return web.Response(status=_OK)


async def _drips(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    try:
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0.05)
    except ConnectionError:
        return response  # the sender's deadline passed


async def _redirects(_: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})


async def _resets(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=_OK)


async def _is_busy(_: web.Request) -> web.StreamResponse:
    return web.Response(status=429, headers={"Retry-After": "1"})


Illness = Callable[[web.Request], Awaitable[web.StreamResponse]]
ILLNESSES: tuple[Illness, ...] = (_fails, _hangs, _drips, _redirects, _resets, _is_busy)
ILL: Mapping[int, Illness] = {
    number: ILLNESSES[number % len(ILLNESSES)] for number in range(COUNT // 2)
}


class Receivers:
    """`taken` counts the messages taken by id; `first_at` is when each was, in epoch seconds."""

    def __init__(self, seed: int, sick_share: float = SICK_SHARE) -> None:
        self.taken: Counter[str] = Counter()
        self.first_at: dict[str, float] = {}
        self.requests = 0
        self.port = 0
        self._random = random.Random(seed)
        self._sick_share = sick_share
        self._runner: web.AppRunner | None = None

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.port}/{number}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def restart(self) -> None:
        """Close every connection, and listen again."""
        assert self._runner is not None
        await self._runner.cleanup()
        await self._listen()

    async def _listen(self) -> None:
        app = web.Application()
        app.router.add_post("/{number}", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        await request.read()
        illness = ILL.get(int(request.match_info["number"]))
        if illness is not None and self._random.random() < self._sick_share:
            return await illness(request)
        message = request.headers["webhook-id"]
        self.taken[message] += 1
        self.first_at.setdefault(message, time.time())
        return web.Response(status=_OK)
