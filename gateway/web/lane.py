"""A client's connection: every request is framed here, then served on one of two lanes.

The fast lane answers simple requests itself: it drives the chain of policies without a task and
writes the answer in one piece. Whatever it does not take goes down the full lane, to aiohttp, one
whole request at a time: aiohttp meets no byte whose place in a request is not certain. Both lanes
make the same `Request` of the same `Head` and call the same chain.

aiohttp is used here below its public surface, and nowhere else; pyproject.toml bounds its version
and tests/unit/web/test_lane.py fails when one of these changes:
- `RequestHandler(manager, loop=..., **options)` with `connection_made`, `connection_lost`,
  `data_received`, `resume_writing`, `pause_writing`, `handle_error` and `force_close`;
- that it calls its own `data_received(b"")` to go on with what it holds already;
- `RequestHandler._drain_helper()`: waits until the transport takes more;
- `RequestHandler.eof_received()`: overridden, and of no use to aiohttp itself;
- `RequestHandler._reading_paused`: the request's body is held back by its reader;
- `web.Server.__call__` and `_loop`: how a connection is made.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from gateway.core.chunked import ChunkedScanner
from gateway.core.error import (
    FieldsTooLarge,
    GatewayError,
    InvalidRequest,
    RequestTimeout,
    TargetTooLong,
)
from gateway.core.message import BodyStream, NoBody, Request, Response, Tunnel
from gateway.telemetry.log import get_logger
from gateway.web.adapt import Arrival
from gateway.web.drive import resume
from gateway.web.head import Framing, Head, parse_head
from gateway.web.problem import CONTENT_TYPE, unexpected
from gateway.web.relay import Relay
from gateway.web.wire import LAST_CHUNK, chunk, has_body, is_chunked, render_head

HEAD_END = b"\r\n\r\n"
MAX_WAITING_BYTES = 64 * 1024  # of requests that wait for the one before them
MIN_BODY_BYTES = 1024  # of a body in each `body_timeout`, or it is too slow
LINGER_SECONDS = 2.0  # in which a refused client may read its answer before the connection goes
_NEVER_SECONDS = 365 * 86400.0  # aiohttp's own idle timer; the one here is in force
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r]*\r\n", re.IGNORECASE)
_BARE_LINE_END = "Each line of the head must end with CR LF."
_NOT_HTTP = "This is not HTTP; is it TLS on a plain port?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a connection may take. `fast` False sends every request down the full lane."""

    max_header: int
    header_timeout: float
    body_timeout: float
    keepalive_timeout: float
    write_timeout: float
    fast: bool = True


class Listening(Protocol):
    """The server, as its connections see it."""

    terms: Terms
    is_draining: bool

    def judge(self, head: Head, peer: str, scheme: str) -> Arrival:
        """What a head asks for."""
        ...

    def handle(self, request: Request) -> Coroutine[Any, Any, Response]:
        """The chain in force."""
        ...

    def adopt(self, request: Request, response: Response) -> Response:
        """The answer as it is to be sent."""
        ...

    def now(self) -> float:
        """Epoch seconds."""
        ...

    def date(self) -> str:
        """The `Date` of now."""
        ...

    def joined(self, connection: Connection) -> bool:
        """A client has connected; False when there are too many."""
        ...

    def left(self, connection: Connection) -> None:
        """It is gone."""
        ...


class _Phase(Enum):
    """What the next bytes are."""

    HEAD = auto()  # of a request's head
    BUSY = auto()  # of the body of the request being served, or of what waits behind it
    TUNNEL = auto()  # of another protocol, after a 101
    ENDING = auto()  # of no interest: the last answer is on its way


class Connection(RequestHandler):
    """One client. One request is served at a time; bounded, what follows waits."""

    __slots__ = (
        "_arrival",
        "_body_seen",
        "_closes",
        "_deadline",
        "_failure",
        "_inbox",
        "_is_held",
        "_left",
        "_lingers",
        "_log",
        "_payload",
        "_peer",
        "_phase",
        "_raw",
        "_relay",
        "_scanner",
        "_scheme",
        "_server",
        "_stall",
        "_task",
        "_timer",
        "_timer_at",
    )

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
        self._phase = _Phase.HEAD
        self._inbox = b""
        self._is_held = False
        self._raw = b""
        self._arrival: Arrival | None = None
        self._closes = self._lingers = False
        self._task: asyncio.Task[None] | None = None
        self._left = 0
        self._scanner: ChunkedScanner | None = None
        self._payload: StreamReader | None = None
        self._failure: GatewayError | None = None
        self._body_seen = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._deadline = math.inf
        self._stall: asyncio.TimerHandle | None = None
        self._relay: Relay | None = None
        self._peer = self._scheme = ""

    # --- what the transport says ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, or send the client away."""
        super().connection_made(transport)
        self._peer = _peer(transport)
        self._scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        if self._server.joined(self):
            self._arm(self._server.terms.keepalive_timeout)
        else:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End what was under way for the client."""
        self._phase = _Phase.ENDING
        self._server.left(self)
        for timer in (self._timer, self._stall):
            if timer is not None:
                timer.cancel()
        self._timer = self._stall = None
        if self._task is not None:
            self._task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came, as far as it may be taken now."""
        if not data:  # aiohttp goes on with what it holds already
            super().data_received(data)
        elif self._phase is _Phase.HEAD:
            self._read(self._inbox + data if self._inbox else data)
        elif self._phase is _Phase.BUSY:
            self._queue(data)
        elif self._phase is _Phase.TUNNEL and self._relay is not None:
            self._relay.feed(data)

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio's: True keeps it half open
        """The client sends no more; through a tunnel it may still read."""
        if self._phase is _Phase.TUNNEL and self._relay is not None:
            self._relay.feed_eof()
            return True
        return False

    def pause_writing(self) -> None:
        """The client reads slower than it is answered; it may for a while."""
        super().pause_writing()
        self._stall = self._loop.call_later(self._server.terms.write_timeout, self._stalled)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._inbox and self._phase is _Phase.HEAD:
            self._loop.call_soon(self._next)

    # --- heads ---------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Read a head, and begin to serve its request."""
        if data == self._raw and self._arrival is not None:  # pollers say the same again
            self._inbox = b""
            self._begin(self._arrival, data, b"")
            return
        if data.startswith(b"\r\n"):  # tolerated before a request line (RFC 9112 section 2.2)
            data = data[2:]
        limit = self._server.terms.max_header
        end = data.find(HEAD_END, 0, limit) + len(HEAD_END)
        if end < len(HEAD_END):
            self._await_head(data, limit)
            return
        raw = data[:end]
        arrival = self._server.judge(parse_head(raw), self._peer, self._scheme)
        self._raw, self._arrival = raw, arrival
        self._inbox = b""
        self._begin(arrival, raw, data[end:])

    def _await_head(self, data: bytes, limit: int) -> None:
        if len(data) >= limit:
            in_line = b"\r\n" not in data[:limit]
            refusal = TargetTooLong if in_line else FieldsTooLarge
            self._refuse(refusal(f"The request's head exceeds {limit} bytes."))
        elif data and not 0x21 <= data[0] <= 0x7E:
            self._refuse(InvalidRequest(_NOT_HTTP))
        elif data.count(b"\n") != data.count(b"\r\n"):
            self._refuse(InvalidRequest(_BARE_LINE_END))
        else:
            if data and not self._inbox:
                self._arm(self._server.terms.header_timeout)
            self._inbox = data

    def _begin(self, arrival: Arrival, raw: bytes, rest: bytes) -> None:
        head = arrival.head
        self._phase = _Phase.BUSY
        self._closes = not head.keep_alive
        self._left, self._scanner, self._failure = 0, None, None
        self._deadline = math.inf
        if arrival.refusal is not None:  # whoever sends such things begins anew
            self._closes = self._lingers = True
            self._answer(arrival)
        elif head.is_upgrade or (head.is_simple and self._server.terms.fast):
            self._inbox = rest
            self._answer(arrival)
        else:
            self._hand_over(head, raw, rest)

    def _refuse(self, error: GatewayError) -> None:
        """Answer a request that has no readable head."""
        self._inbox = b""
        head = Head(error=error, breaks=True)
        self._begin(self._server.judge(head, self._peer, self._scheme), b"", b"")

    # --- the fast lane -------------------------------------------------------------------------

    def _answer(self, arrival: Arrival) -> None:
        """Run the chain; without a task, unless something in it really waits."""
        request = arrival.request(NoBody(), self._server.now())
        work = self._server.handle(request)
        try:
            waits_for = work.send(None)
        except StopIteration as done:
            response: Response = done.value
            if isinstance(response.body, bytes):
                self._send(request, response)
                self._done()
            else:
                self._task = self._loop.create_task(self._stream(request, response))
        except Exception:  # noqa: BLE001 - the chain answers errors itself: this one is the gateway's own
            self._broken(request)
        else:
            self._task = self._loop.create_task(self._go_on(request, work, waits_for))

    async def _go_on(
        self, request: Request, work: Coroutine[Any, Any, Response], waits_for: Any
    ) -> None:
        try:
            response = await resume(work, waits_for)
            if not isinstance(response.body, bytes):
                await self._stream(request, response)
                return
            self._send(request, response)
        except Exception:  # noqa: BLE001 - as above
            self._broken(request)
        else:
            self._done()

    def _send(self, request: Request, response: Response) -> None:
        """Write an answer whose body is here, head and body as one."""
        self._closes = self._closes or self._server.is_draining
        head = render_head(request.method, response, self._server.date(), close=self._closes)
        body = response.body
        assert isinstance(body, bytes)
        if self.transport is not None:
            sent = has_body(request.method, response.status)
            self.transport.write(head + body if sent else head)

    async def _stream(self, request: Request, response: Response) -> None:
        """Write an answer as it comes, each piece at once, no faster than the client takes it."""
        if response.tunnel is not None:
            await self._pass_through(response, response.tunnel)
            return
        response = self._server.adopt(request, response)
        body = response.body
        assert isinstance(body, BodyStream)
        try:
            self._closes = self._closes or self._server.is_draining
            chunked = is_chunked(request.method, response)
            self.send(
                render_head(request.method, response, self._server.date(), close=self._closes)
            )
            if has_body(request.method, response.status):
                async for piece in body:
                    if piece:
                        self.send(chunk(piece) if chunked else piece)
                        await self._drain_helper()
                if chunked:
                    self.send(LAST_CHUNK)
        except ConnectionError:
            self._log.debug("client_left", request_id=request.request_id)
            self.force_close()
        except Exception as error:  # noqa: BLE001 - whatever broke it, the client must see a break
            self._log.info("answer_broken", request_id=request.request_id, error=str(error))
            self._abort()
        else:
            self._done()
        finally:
            # A client that left mid-stream must not keep the upstream's connection open.
            await body.aclose()

    async def _pass_through(self, response: Response, tunnel: Tunnel) -> None:
        """Be a tunnel for the rest of the connection's life."""
        body = response.body
        assert isinstance(body, BodyStream)
        relay = self._relay = Relay(self, tunnel)
        try:
            self.send(render_head("GET", response, self._server.date(), close=False))
            self._phase = _Phase.TUNNEL
            if self._inbox:
                relay.feed(self._inbox)
                self._inbox = b""
            if self._server.is_draining:
                relay.leave()
            body.is_complete = await relay.run()
            self._end()
        except ConnectionError:
            self.force_close()
        finally:
            body.size = relay.size
            await body.aclose()

    def leave(self) -> None:
        """Ask whoever speaks through a tunnel to come back later."""
        if self._phase is _Phase.TUNNEL and self._relay is not None:
            self._relay.leave()

    # As its relay sees it.

    def send(self, data: bytes) -> None:
        """Write; raises ConnectionError once the client has left."""
        if self.transport is None:
            raise ConnectionResetError("the client has left")
        self.transport.write(data)

    async def drained(self) -> None:
        """Until the client takes more."""
        await self._drain_helper()

    def hold(self) -> None:
        """Read no more from the client."""
        if self.transport is not None and not self._is_held:
            self._is_held = True
            self.transport.pause_reading()

    def let_go(self) -> None:
        """Read on."""
        if self.transport is not None and self._is_held:
            self._is_held = False
            self.transport.resume_reading()

    def _broken(self, request: Request) -> None:
        self._log.exception("unanswered", request_id=request.request_id, path=request.path)
        self._abort()

    # --- the full lane -------------------------------------------------------------------------

    def _hand_over(self, head: Head, raw: bytes, rest: bytes) -> None:
        """Give a request to aiohttp, with what is here of its body."""
        self._left = head.length
        self._scanner = ChunkedScanner() if head.framing is Framing.CHUNKED else None
        self._payload = None
        try:
            size = self._measure(rest)
        except InvalidRequest as error:
            self._refuse(error)
            return
        self._inbox = rest[size:]
        self._await_body()
        if "Upgrade" in head.headers:  # declined: aiohttp must not stop reading HTTP for it
            raw = _UPGRADE.sub(b"\r\n", raw)
        super().data_received(raw + rest[:size])

    @property
    def arrival(self) -> Arrival:
        """Of the request that the full lane serves now."""
        assert self._arrival is not None
        return self._arrival

    @property
    def closes(self) -> bool:
        """True when the connection must end with the answer under way."""
        return self._closes or self._server.is_draining or not self._has_whole_body()

    def begin_body(self, payload: StreamReader) -> None:
        """The full lane has a request's body to be read."""
        self._payload = payload
        if self._failure is not None:
            payload.set_exception(self._failure)

    def answered(self, *, closes: bool) -> None:
        """The full lane has written an answer."""
        self._closes = self._closes or closes
        if self._closes:
            if self._failure is not None and self._payload is not None:
                self._payload.feed_eof()  # nothing more will come: aiohttp need not wait for it
            elif self._has_whole_body():
                self._phase = _Phase.ENDING
            self._inbox = b""
            return  # aiohttp closes, once it has read what is left of the body
        self._done()

    def _queue(self, data: bytes) -> None:
        """Take what belongs to the body of the request being served; the rest waits its turn."""
        if not self._has_whole_body() and self._failure is None:
            try:
                size = self._measure(data)
            except InvalidRequest as error:
                self._fail_body(error)
                return
            if self._has_whole_body():
                self._deadline = math.inf
            self._body_seen += size
            super().data_received(data[:size])
            data = data[size:]
        if not data or self._closes or self._failure is not None:
            return
        self._inbox += data
        if len(self._inbox) > MAX_WAITING_BYTES:
            self.hold()

    def _measure(self, data: bytes) -> int:
        """How many of these bytes are of the body. Raises `InvalidRequest` for bad chunks."""
        if self._scanner is not None:
            return self._scanner.feed(data)
        size = min(self._left, len(data))
        self._left -= size
        return size

    def _has_whole_body(self) -> bool:
        return self._left == 0 and (self._scanner is None or self._scanner.is_done)

    def _await_body(self) -> None:
        if not self._has_whole_body():
            self._body_seen = 0
            self._arm(self._server.terms.body_timeout)

    def _fail_body(self, error: GatewayError) -> None:
        """Whoever reads the body learns what became of it; nothing more is read."""
        self._failure = error
        self._closes = True
        self._inbox = b""
        if self._payload is not None:
            self._payload.set_exception(error)

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
        self._closes = True
        return response

    # --- from one request to the next ----------------------------------------------------------

    def _done(self) -> None:
        """An answer is written: wait for the next request, or end."""
        self._task = None
        if self._closes:
            self._end()
            return
        self._phase = _Phase.HEAD
        self._payload = None
        self._arm(self._server.terms.keepalive_timeout)
        if self._inbox:
            # Not now: a client with many requests in one packet must not keep all others waiting.
            self._loop.call_soon(self._next)
        self.let_go()

    def _next(self) -> None:
        if self._phase is _Phase.HEAD and self._inbox and not self.writing_paused:
            data, self._inbox = self._inbox, b""
            self._read(data)

    def end_if_idle(self) -> None:
        """Close a connection that serves nothing."""
        if self._phase is _Phase.HEAD and not self._inbox:
            self.force_close()

    @property
    def is_idle(self) -> bool:
        """True while no request is being served or coming in."""
        return self._phase is _Phase.HEAD and not self._inbox

    def _end(self) -> None:
        """Close; a client that may be sending still gets to read its answer (RFC 9112 9.6)."""
        self._phase = _Phase.ENDING
        transport = self.transport
        if transport is None:
            return
        if self._lingers and transport.can_write_eof():
            transport.write_eof()
            self._arm(LINGER_SECONDS)
        else:
            self.force_close()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # --- time ----------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        """Expire in so many seconds, unless armed anew; a timer that is early enough stays."""
        at = self._deadline = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._schedule(at)

    def _schedule(self, at: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline:
            if self._deadline < math.inf:
                self._schedule(self._deadline)
        elif self._phase is _Phase.HEAD and self._inbox:
            self._refuse(RequestTimeout("The request's head did not come in whole in time."))
        elif self._phase is _Phase.BUSY:
            self._check_body()
        else:
            self.force_close()

    def _check_body(self) -> None:
        """A body may be slow where its reader is; else it must come on."""
        if self._has_whole_body():
            return
        if self._reading_paused or self._body_seen >= MIN_BODY_BYTES:
            self._await_body()
        else:
            self._fail_body(RequestTimeout("The request's body did not come in whole in time."))

    def _stalled(self) -> None:
        self._log.info("client_stalled", client=self._peer)
        self._abort()


class LaneServer(web.Server):
    """aiohttp's server, its connections being ours."""

    def __init__(self, handler: Any, server: Listening, **options: Any) -> None:
        super().__init__(handler, request_factory=options.pop("request_factory"))
        self._listening = server
        self._options = options

    def __call__(self) -> RequestHandler:
        """A connection."""
        return Connection(self, self._listening, self._loop, **self._options)


def _peer(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) and name else "unix"
