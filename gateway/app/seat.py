"""A worker's seat beside others: the sockets it was handed, and what its parent tells and asks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from gateway.core.error import ServiceUnavailable
from gateway.web.health import Status
from gateway.web.server import Inherited, PublicServer
from gateway.worker.assignment import SLOTS
from gateway.worker.desk import CLIENT
from gateway.worker.overview import PULSE, worst
from gateway.worker.place import Place

_HEARSAY_SECONDS = 10.0  # what a parent that fell silent last said is then worth nothing
_ASK_SECONDS = 5.0

Report = Callable[[], dict[str, Any]]


class Seat:
    """One process's; `routes` are for its control socket, not for clients."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._public = [[socket.socket(fileno=each) for each in slot] for slot in place.public]
        unix = None if place.socket is None else socket.socket(fileno=place.socket)
        self.inherited = Inherited(self._public[place.slot], unix)
        self._server: PublicServer | None = None
        self._beside: dict[int, Sequence[asyncio.AbstractServer]] = {}
        self._told: Status | None = None
        self._told_at = 0.0
        self._session: aiohttp.ClientSession | None = None

    async def open(self, server: PublicServer, stack: AsyncExitStack) -> int:
        """Have `server` listen on the slot's sockets; the port."""
        self._server = server
        self._told_at = asyncio.get_running_loop().time()
        self._session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self.place.parent)),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        )
        return await server.start(self.inherited)

    def status(self, own: Status) -> Status:
        """Of all workers, as the parent last told; while it is silent, ours and not a good one."""
        if asyncio.get_running_loop().time() - self._told_at > _HEARSAY_SECONDS:
            return worst((own, Status.DEGRADED))
        return own if self._told is None else self._told

    async def exposition(self, accept: str) -> tuple[str, bytes]:
        """Of all workers, from the parent. Raises ServiceUnavailable."""
        # In a task of its own: a request that waits for nothing has none, and aiohttp needs one.
        return await asyncio.create_task(self._ask(accept))

    async def _ask(self, accept: str) -> tuple[str, bytes]:
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
        headers = {"Accept": accept}
        try:
            async with self._session.get(
                "http://parent/metrics", headers=headers, timeout=timeout
            ) as response:
                if response.status != 200:
                    raise ServiceUnavailable("The metrics of all workers are not to be had.")
                return response.headers["Content-Type"], await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ServiceUnavailable("The parent of the workers does not answer.") from error

    def routes(self, report: Report) -> Iterable[web.RouteDef]:
        """What the parent asks, beside what operators do."""

        async def pulse(request: web.Request) -> web.Response:
            self._told = Status(orjson.loads(await request.read())["status"])
            self._told_at = asyncio.get_running_loop().time()
            return _document(report())

        async def slots(request: web.Request) -> web.Response:
            await self._accept(set(orjson.loads(await request.read())) - {self.place.slot})
            return _document({"slots": [self.place.slot, *sorted(self._beside)]})

        return [web.post(PULSE, pulse), web.put(SLOTS, slots)]

    async def _accept(self, slots: set[int]) -> None:
        """Accept connections of these beside our own, and of no others."""
        assert self._server is not None
        for slot in set(self._beside) - slots:
            for listening in self._beside.pop(slot):
                listening.close()
        if self._server.is_draining:
            return
        for slot in slots - set(self._beside):
            self._beside[slot] = await self._server.listen_on(self._public[slot])


@web.middleware
async def as_client(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Take who asked the parent for who asks: a key may be for some networks alone."""
    client = request.headers.get(CLIENT)
    return await handler(request if client is None else request.clone(remote=client))


def _document(document: object) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json")
