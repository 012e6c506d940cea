"""A client's connection as aiohttp's server protocol, opened up for the lanes.

aiohttp is used here below its public surface, and nowhere else; pyproject.toml bounds its version
and tests/unit/web/test_protocol.py fails when one of these changes:
- `RequestHandler(manager, loop=..., **options)` with `connection_made`, `connection_lost`,
  `data_received`, `eof_received`, `resume_writing`, `pause_writing`, `handle_error`, `force_close`;
- that it calls its own `data_received(b"")` to go on with what it holds already;
- `RequestHandler._drain_helper()`: waits until the transport takes more;
- `RequestHandler._reading_paused`: the request's body is held back by its reader;
- `RequestHandler._loop`; `web.Server.__call__` and `_loop`: how a connection is made.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.telemetry.log import get_logger
from gateway.web.listening import Listening
from gateway.web.problem import CONTENT_TYPE, unexpected

_NEVER_SECONDS = 365 * 86400.0  # aiohttp's own idle timer; the one of the lanes is in force


class ClientProtocol(RequestHandler):
    """What can be done with a client: bytes in and out, and how fast."""

    __slots__ = ("_is_held", "_log", "_server", "_stall", "peer", "scheme")

    def __init__(
        self,
        manager: web.Server,
        server: Listening,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(manager, loop=loop, keepalive_timeout=_NEVER_SECONDS, **options)
        self._server = server
        self._log = get_logger("server")
        self._is_held = False
        self._stall: asyncio.TimerHandle | None = None
        self.peer = self.scheme = ""

    @abstractmethod
    def received(self, data: bytes) -> None:
        """Take in what came, as far as it may be taken now."""

    @abstractmethod
    def ended(self) -> bool:
        """The client sends no more; True to go on sending to it."""

    @abstractmethod
    def unpaused(self) -> None:
        """The client takes more again."""

    # --- what the transport says ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who it is."""
        super().connection_made(transport)
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if isinstance(name, tuple) and name else "unix"
        self.scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing can be sent any more."""
        self._unstall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it; and aiohttp, without bytes, to go on with what it holds."""
        if data:
            self.received(data)
        else:
            super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio's: True keeps it half open
        """As asyncio calls it."""
        return self.ended()

    def pause_writing(self) -> None:
        """The client reads slower than it is answered; it may for a while."""
        super().pause_writing()
        self._stall = self._loop.call_later(self._server.terms.write_timeout, self._stalled)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._unstall()
        self.unpaused()

    # --- what the lanes do ---------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write; raises ConnectionError once the client has left."""
        if self.transport is None:
            raise ConnectionResetError("the client has left")
        self.transport.write(data)

    async def drained(self) -> None:
        """Until the client takes more; raises ConnectionError likewise."""
        await self._drain_helper()

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

    def abort(self) -> None:
        """Break the connection: the client must not take what it has for an answer."""
        if self.transport is not None:
            self.transport.abort()

    def hand_to_aiohttp(self, data: bytes) -> None:
        """Bytes of the request that the full lane serves."""
        super().data_received(data)

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
        self._log.error("full_lane_refused", status=status, exc_info=exc, message=message)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun and cannot be replaced")
        problem = unexpected(status)
        assert isinstance(problem.body, bytes)
        response = web.Response(status=status, body=problem.body, content_type=CONTENT_TYPE)
        response.force_close()
        return response

    def _stalled(self) -> None:
        self._log.info("client_stalled", client=self.peer)
        self.abort()

    def _unstall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


class LaneServer(web.Server):
    """aiohttp's server, its connections being ours."""

    def __init__(
        self, handler: Any, server: Listening, connection: type[ClientProtocol], **options: Any
    ) -> None:
        super().__init__(handler, request_factory=options.pop("request_factory"))
        self._listening = server
        self._connection = connection
        self._options = options

    def __call__(self) -> RequestHandler:
        """A connection."""
        return self._connection(self, self._listening, self._loop, **self._options)
