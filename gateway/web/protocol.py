"""A client's connection: bytes in and out, and how fast; and aiohttp's server behind it.

A connection begins without aiohttp. The first request for the full lane gives it an aiohttp
protocol of its own, which shares the transport from then on.

aiohttp is used here below its public surface, and nowhere else; pyproject.toml bounds its version
and tests/unit/web/test_protocol.py fails when one of these changes:
- `RequestHandler(manager, loop=..., **options)`, and its methods `connection_made`,
  `connection_lost`, `data_received`, `pause_writing`, `resume_writing`, `handle_error`;
- that it closes the transport, and nothing else, when its last answer is out;
- `RequestHandler._reading_paused`: the request's body is held back by its reader.
"""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.telemetry.log import get_logger
from gateway.web.listening import Listening
from gateway.web.problem import CONTENT_TYPE, unexpected

_NEVER_SECONDS = 365 * 86400.0  # aiohttp's own idle timer; the one of the lanes is in force
_log = get_logger("server")


class ClientProtocol(asyncio.Protocol):
    """What can be done with a client."""

    __slots__ = (
        "_drain",
        "_full_lane",
        "_is_held",
        "_is_paused",
        "_loop",
        "_server",
        "_stall",
        "peer",
        "scheme",
        "transport",
    )

    def __init__(self, server: Listening, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._is_held = self._is_paused = False
        self._drain: asyncio.Future[None] | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._full_lane: FullLane | None = None
        self.transport: asyncio.Transport | None = None
        self.peer = self.scheme = ""

    @abstractmethod
    def unpaused(self) -> None:
        """The client takes more again."""

    # --- what the transport says ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who it is."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if isinstance(name, tuple) and name else "unix"
        self.scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        _keep_alive(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing can be sent any more."""
        self.transport = None
        self._unstall()
        if self._drain is not None and not self._drain.done():
            self._drain.set_exception(ConnectionResetError("the client has left"))
        if self._full_lane is not None:
            self._full_lane.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slower than it is answered; it may for a while."""
        self._is_paused = True
        self._stall = self._loop.call_later(self._server.terms.write_timeout, self._stalled)
        if self._full_lane is not None:
            self._full_lane.pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._is_paused = False
        self._unstall()
        if self._drain is not None and not self._drain.done():
            self._drain.set_result(None)
        if self._full_lane is not None:
            self._full_lane.resume_writing()
        self.unpaused()

    # --- what the lanes do ---------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write; raises ConnectionError once the client has left."""
        if self.transport is None:
            raise ConnectionResetError("the client has left")
        self.transport.write(data)

    async def drained(self) -> None:
        """Until the client takes more; raises ConnectionError likewise. One at a time may wait."""
        if self.transport is None:
            raise ConnectionResetError("the client has left")
        if self._is_paused:
            self._drain = self._loop.create_future()
            await self._drain

    def hold(self) -> None:
        """Read no more from the client."""
        if self.transport is not None and not self._is_held:
            self._is_held = True
            self.transport.pause_reading()

    def let_go(self) -> None:
        """Read on."""
        if self._is_held and self.transport is not None:
            self._is_held = False
            self.transport.resume_reading()

    def close(self) -> None:
        """End the connection once all that was written has gone."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Break the connection: the client must not take what it has for an answer."""
        if self.transport is not None:
            self.transport.abort()

    def hand_to_aiohttp(self, data: bytes) -> None:
        """Bytes of the request that the full lane serves."""
        if self._full_lane is None:
            assert self.transport is not None
            self._full_lane = self._server.full_lane(self)
            self._full_lane.connection_made(self.transport)
            if self._is_paused:
                self._full_lane.pause_writing()
        self._full_lane.data_received(data)

    @property
    def is_body_held(self) -> bool:
        """True while whoever reads the request's body takes no more of it."""
        return self._full_lane is not None and self._full_lane.is_body_held

    def _stalled(self) -> None:
        _log.info("client_stalled", client=self.peer)
        self.abort()

    def _unstall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


class FullLane(RequestHandler):
    """aiohttp's side of a connection; `client` is ours."""

    __slots__ = ("client",)

    def __init__(
        self,
        manager: web.Server,
        client: ClientProtocol,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(manager, loop=loop, keepalive_timeout=_NEVER_SECONDS, **options)
        self.client = client

    @property
    def is_body_held(self) -> bool:
        """True while whoever reads the request's body takes no more of it."""
        return self._reading_paused

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp would not serve, in our words; it should not come to this."""
        _log.error("full_lane_refused", status=status, exc_info=exc, message=message)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun and cannot be replaced")
        problem = unexpected(status)
        assert isinstance(problem.body, bytes)
        response = web.Response(status=status, body=problem.body, content_type=CONTENT_TYPE)
        response.force_close()
        return response


def _keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the kernel notice clients that vanished without a word, streams' above all."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
