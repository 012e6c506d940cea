"""A client's connection: every request is framed here, then served on one of two lanes.

The fast lane answers simple requests itself: it drives the chain of policies without a task and
writes the answer in one piece. Whatever it does not take goes down the full lane, to aiohttp, one
whole request at a time: aiohttp meets no byte whose place in a request is not certain. Both lanes
make the same `Request` of the same `Head` and call the same chain.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Coroutine
from enum import Enum, auto
from typing import Any

from aiohttp.streams import StreamReader
from multidict import CIMultiDict

from gateway.core.error import (
    FieldsTooLarge,
    GatewayError,
    InvalidRequest,
    RequestTimeout,
    TargetTooLong,
)
from gateway.core.message import BodyStream, NoBody, Request, Response, Tunnel
from gateway.job.feed import Feed
from gateway.telemetry.log import get_logger
from gateway.web.adapt import Arrival
from gateway.web.course import ForwardCourse, HeldCourse, course
from gateway.web.deadline import Deadline
from gateway.web.drive import resume
from gateway.web.framing import BodyFraming
from gateway.web.head import Head, parse_head
from gateway.web.listening import Listening
from gateway.web.protocol import ClientProtocol
from gateway.web.relay import Relay
from gateway.web.wire import (
    LAST_CHUNK,
    chunk,
    has_body,
    is_chunked,
    render_head,
    render_interim,
)

_log = get_logger("server")
HEAD_END = b"\r\n\r\n"
MAX_WAITING_BYTES = 64 * 1024  # of requests that wait for the one before them
MIN_BODY_BYTES = 1024  # of a body in each `body_timeout`, or it is too slow
MAX_UNTAKEN = 3  # courses made in vain for heads that are not quite the same
LINGER_SECONDS = 2.0  # in which a refused client may read its answer before the connection goes
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r]*\r\n", re.IGNORECASE)
_BARE_LINE_END = "Each line of the head must end with CR LF."
_NOT_HTTP = "This is not HTTP; is it TLS on a plain port?"


class _Phase(Enum):
    """What the next bytes are."""

    HEAD = auto()  # of a request's head
    BUSY = auto()  # of the body of the request being served, or of what waits behind it
    TUNNEL = auto()  # of another protocol, after a 101
    ENDING = auto()  # of no interest: the last answer is on its way


class Connection(ClientProtocol):
    """One client. One request is served at a time; bounded, what follows waits."""

    __slots__ = (
        "_arrival",
        "_body",
        "_closes",
        "_course",
        "_deadline",
        "_failure",
        "_feed",
        "_forwarding",
        "_inbox",
        "_is_repeated",
        "_lingers",
        "_payload",
        "_phase",
        "_raw",
        "_relay",
        "_task",
        "_untaken",
    )

    def __init__(self, server: Listening, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop)
        self._phase = _Phase.HEAD
        self._deadline = Deadline(loop, self._expired)
        self._inbox = b""
        self._raw = b""
        self._arrival: Arrival | None = None
        self._course: HeldCourse | ForwardCourse | None = None
        self._forwarding: ForwardCourse | None = None
        self._is_repeated = False
        self._untaken = 0  # courses that were made since one was taken
        self._closes = self._lingers = False
        self._task: asyncio.Task[Any] | None = None
        self._relay: Relay | None = None
        self._feed: Feed | None = None
        # Of the full lane: the body under way, where it is read, and what is wrong with it.
        self._body: BodyFraming | None = None
        self._payload: StreamReader | None = None
        self._failure: GatewayError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, or send the client away."""
        super().connection_made(transport)
        if self._server.joined(self):
            self._deadline.set(self._server.terms.keepalive_timeout)
        else:
            self.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End what was under way for the client."""
        self._phase = _Phase.ENDING
        self._deadline.close()
        super().connection_lost(exc)
        if self._forwarding is not None:
            self._forwarding.leave()
            self._forwarding = None
        if self._feed is not None:
            self._feed.close()
        if self._task is None:
            self._server.left(self)
        else:
            self._task.add_done_callback(lambda _: self._server.left(self))
            # Not before it has begun: it must be there to end what it was made to go on with.
            self._loop.call_soon(self._task.cancel)

    def data_received(self, data: bytes) -> None:
        """Take in what came, as far as it may be taken now."""
        if self._phase is _Phase.HEAD:
            self._read(self._inbox + data if self._inbox else data)
        elif self._phase is _Phase.BUSY:
            self._queue(data)
        elif self._phase is _Phase.TUNNEL and self._relay is not None:
            self._relay.feed(data)

    def eof_received(self) -> bool:
        """The client sends no more; through a tunnel it may still read."""
        if self._phase is _Phase.TUNNEL and self._relay is not None:
            self._relay.feed_eof()
            return True
        return False

    def unpaused(self) -> None:
        """Serve what waited for the client to read."""
        if self._inbox and self._phase is _Phase.HEAD:
            self._loop.call_soon(self._next)

    # --- heads ---------------------------------------------------------------------------------

    def _read(self, data: bytes) -> None:
        """Read a head, and begin to serve its request."""
        limit = self._server.terms.max_header
        is_same, known = data == self._raw, self._course  # pollers say the same again
        if known is not None and (is_same or (len(data) <= limit and known.takes(data))):
            self._inbox = b""
            if self._run(known):
                if not is_same:
                    self._raw, self._arrival = data, None  # what was judged is of another head
                return
        if is_same and self._arrival is not None:
            self._inbox = b""
            self._is_repeated = True
            self._begin(self._arrival, data, b"")
            return
        if data.startswith(b"\r\n"):  # tolerated before a request line (RFC 9112 section 2.2)
            data = data[2:]
        end = data.find(HEAD_END, 0, limit) + len(HEAD_END)
        if end < len(HEAD_END):
            self._await_head(data, limit)
            return
        raw = data[:end]
        head = parse_head(raw, self._server.terms.methods)
        arrival = self._server.judge(head, self.peer, self.scheme)
        line = raw[: raw.index(b"\r\n") + 2]
        self._is_repeated = self._untaken < MAX_UNTAKEN and self._raw.startswith(line)
        self._raw, self._arrival, self._course = raw, arrival, None
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
                self._deadline.set(self._server.terms.header_timeout)
            self._inbox = data

    def _begin(self, arrival: Arrival, raw: bytes, rest: bytes) -> None:
        head = arrival.head
        self._phase = _Phase.BUSY
        self._closes = not head.keep_alive
        self._body = self._failure = None
        self._deadline.suspend()
        if arrival.refusal is not None:  # whoever sends such things begins anew
            self._closes = self._lingers = True
            self._answer(arrival)
        elif head.is_upgrade or (head.is_simple and self._server.terms.fast):
            self._inbox = rest
            self._answer(arrival)
        else:
            self._hand_over(head, raw, rest)

    def _refuse(self, error: GatewayError) -> None:
        """Answer a request that has no readable head, or a body to match."""
        self._inbox = b""
        head = Head(error=error, breaks=True)
        self._begin(self._server.judge(head, self.peer, self.scheme), b"", b"")

    # --- the courses of repeated requests ------------------------------------------------------

    def _run(self, course: HeldCourse | ForwardCourse) -> bool:
        """Answer by a course; False, and nothing has happened, when it does not hold any more."""
        server = self._server
        at = server.now()
        if course.chain is not server.chain or not course.is_ready(at):
            self._course = None
            return False
        self._untaken = 0
        if isinstance(course, ForwardCourse):
            self._phase = _Phase.BUSY
            self._closes = False
            self._body = self._failure = None
            self._deadline.suspend()
            self._forwarding = course
            course.start(at)
            return True
        closes = self._closes = server.is_draining
        answer = course.answer(at, close=closes)
        assert self.transport is not None
        self.transport.write(answer)
        course.done(server.now())
        if closes:
            self._end()
        else:
            self._deadline.set(server.terms.keepalive_timeout)
        return True

    def forwarded(self, answer: bytes) -> None:
        """Write the answer of a course."""
        self._forwarding = None
        self._closes = self.closes
        if self.transport is not None:
            self.transport.write(answer)
        self._done()

    def go_on(self, request: Request, work: Coroutine[Any, Any, Response]) -> None:
        """Send what a course's steps make of an answer; they see the next one as well."""
        self._forwarding = None
        self._is_repeated = False
        self._task = self._loop.create_task(self._go_on(request, work))

    # --- the fast lane -------------------------------------------------------------------------

    def _answer(self, arrival: Arrival) -> None:
        """Run the chain; without a task, unless something in it really waits."""
        request = arrival.request(NoBody(), self._server.now())
        work = self._server.chain.handle(request)
        try:
            waits_for = work.send(None)
        except StopIteration as done:
            response: Response = done.value
            if isinstance(response.body, bytes):
                self._send_whole(request, response, response.body)
                self._done()
            elif isinstance(response.body, Feed):
                self._begin_feed(request, response, response.body)
            else:
                self._task = self._loop.create_task(self._stream(request, response, response.body))
        except Exception:  # noqa: BLE001 - the chain answers errors itself: this one is ours
            self._broken(request)
        else:
            request.interim = self.pass_interim
            rest = resume(work, waits_for)
            self._task = self._loop.create_task(self._go_on(request, rest))

    async def _go_on(self, request: Request, work: Awaitable[Response]) -> None:
        try:
            response = await work
            request.interim = None
            if isinstance(response.body, Feed):
                self._begin_feed(request, response, response.body)
                return
            if not isinstance(response.body, bytes):
                await self._stream(request, response, response.body)
                return
            self._send_whole(request, response, response.body)
        except Exception:  # noqa: BLE001 - as above
            self._broken(request)
        else:
            self._done()

    def pass_interim(self, status: int, headers: CIMultiDict[str]) -> None:
        """Write an interim answer before the one under way, for a client that reads."""
        if self.transport is not None and not self._is_paused:
            self.transport.write(render_interim(status, headers))

    def _send_whole(self, request: Request, response: Response, body: bytes) -> None:
        """Write an answer whose body is here, head and body as one."""
        server = self._server
        if self._is_repeated:
            self._course = course(server, request, self._raw, response, self)
            self._untaken += 1
        head = self._head(request, response)
        if self.transport is not None:
            sent = has_body(request.method, response.status)
            self.transport.write(head + body if sent else head)

    def _head(self, request: Request, response: Response) -> bytes:
        self._closes = self._closes or self._server.is_draining
        return render_head(
            request.method, response, self._server.date(self._server.now()), close=self._closes
        )

    async def _stream(self, request: Request, response: Response, body: BodyStream) -> None:
        """Write an answer as it comes, each piece at once, no faster than the client takes it."""
        try:
            if response.tunnel is not None:
                await self._pass_through(response, response.tunnel, body)
                return
            response = self._server.adopt(request, response)
            assert isinstance(response.body, BodyStream)
            body = response.body
            await self._send_pieces(request, response, body)
        except ConnectionError:
            _log.debug("client_left", **request.ids)
            self.close()
        except Exception as error:  # noqa: BLE001 - whatever broke it, the client must see a break
            _log.info("answer_broken", error=str(error), **request.ids)
            self.abort()
        else:
            self._done()
        finally:
            # A client that left mid-stream must not keep the upstream's connection open.
            await body.aclose()

    async def _send_pieces(self, request: Request, response: Response, body: BodyStream) -> None:
        chunked = is_chunked(request.method, response)
        self.send(self._head(request, response))
        if not has_body(request.method, response.status):
            return
        async for piece in body:
            if piece:
                self.send(chunk(piece) if chunked else piece)
                await self.drained()
        if chunked:
            self.send(LAST_CHUNK)

    # A feed writes to its clients by itself: a stream that is idle costs no task.

    def _begin_feed(self, request: Request, response: Response, feed: Feed) -> None:
        """Answer with a body that comes by itself, until it ends or the client leaves."""
        self._server.adopt(request, response)
        self._task = None
        if self.transport is None:
            feed.close()
            return
        head = self._head(request, response)
        # There may be many, for long: what only the way here needed is let go.
        self._raw, self._arrival, self._course = b"", None, None
        request.headers = response.headers = CIMultiDict()
        self._deadline.close()
        self._feed = feed
        self.transport.write(head + feed.attach(self))
        feed.start()

    def take(self, chunks: bytes) -> int:
        """Send bytes framed as chunks; how many bytes then wait to be sent."""
        if self.transport is None:
            return 0
        self.transport.write(chunks)
        return self.transport.get_write_buffer_size()

    def finish(self, *, complete: bool) -> None:
        """The feed has ended: in order, or so that its client sees a break."""
        feed, self._feed = self._feed, None
        assert feed is not None
        feed.close(complete=complete)
        if self.transport is None:
            return
        if complete:
            self.transport.write(LAST_CHUNK)
            self._done()
        else:
            self._phase = _Phase.ENDING
            self.close()
            self._loop.call_later(LINGER_SECONDS, self.abort)  # one that reads nothing, by force

    async def _pass_through(self, response: Response, tunnel: Tunnel, body: BodyStream) -> None:
        """Be a tunnel for the rest of the connection's life."""
        relay = self._relay = Relay(self, tunnel)
        try:
            self.send(
                render_head("GET", response, self._server.date(self._server.now()), close=False)
            )
            self._phase = _Phase.TUNNEL
            if self._inbox:
                relay.feed(self._inbox)
                self._inbox = b""
            if self._server.is_draining:
                relay.leave()
            body.is_complete = await relay.run()
            self._lingers = True
            self._end()
        finally:
            tunnel.close()
            body.size = relay.size

    def _broken(self, request: Request) -> None:
        _log.exception("unanswered", path=request.path, **request.ids)
        self.abort()

    # --- the full lane -------------------------------------------------------------------------

    def _hand_over(self, head: Head, raw: bytes, rest: bytes) -> None:
        """Give a request to aiohttp, with what is here of its body."""
        body = self._body = BodyFraming(head)
        self._payload = None
        try:
            size = body.take(rest)
        except InvalidRequest as error:
            self._refuse(error)
            return
        self._inbox = rest[size:]
        self._await_body(body)
        if "Upgrade" in head.headers:  # declined: aiohttp must not stop reading HTTP for it
            raw = _UPGRADE.sub(b"\r\n", raw)
        self.hand_to_aiohttp(raw + rest[:size])

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

    def streams(self, task: asyncio.Task[Any] | None) -> None:
        """The full lane's `task` writes a stream: it ends when the client leaves."""
        self._task = task

    def answered(self, *, closes: bool) -> None:
        """The full lane has written an answer."""
        self._task = None
        self._closes = self._closes or closes
        if not self._closes:
            self._done()
            return
        self._inbox = b""  # aiohttp closes, once it has read what is left of the body
        if self._failure is not None and self._payload is not None:
            self._payload.feed_eof()  # nothing more will come: it need not wait for it
        elif self._has_whole_body():
            self._phase = _Phase.ENDING

    def _queue(self, data: bytes) -> None:
        """Take what belongs to the body of the request being served; the rest waits its turn."""
        body = self._body
        if body is not None and self._failure is None and not body.is_whole():
            try:
                size = body.take(data)
            except InvalidRequest as error:
                self._fail_body(error)
                return
            if body.is_whole():
                self._deadline.suspend()
            self.hand_to_aiohttp(data[:size])
            data = data[size:]
        if data and not self._closes and self._failure is None:
            self._inbox += data
            if len(self._inbox) > MAX_WAITING_BYTES:
                self.hold()

    def _has_whole_body(self) -> bool:
        return self._body is None or self._body.is_whole()

    def _await_body(self, body: BodyFraming) -> None:
        if not body.is_whole():
            body.seen = 0
            self._deadline.set(self._server.terms.body_timeout)

    def _check_body(self, body: BodyFraming) -> None:
        """A body may be slow where its reader is; else it must come on."""
        if self.is_body_held or body.seen >= MIN_BODY_BYTES:
            self._await_body(body)
        elif not body.is_whole():
            self._fail_body(RequestTimeout("The request's body did not come in whole in time."))

    def _fail_body(self, error: GatewayError) -> None:
        """Whoever reads the body learns what became of it; nothing more is read."""
        self._failure = error
        self._closes = True
        self._inbox = b""
        if self._payload is not None:
            self._payload.set_exception(error)

    # --- from one request to the next ----------------------------------------------------------

    def _done(self) -> None:
        """An answer is written: wait for the next request, or end."""
        self._task = None
        if self._phase is _Phase.ENDING:
            return
        if self._closes:
            self._end()
            return
        self._phase = _Phase.HEAD
        self._payload = None
        self._deadline.set(self._server.terms.keepalive_timeout)
        if self._inbox:
            # Not now: a client with many requests in one packet must not keep all others waiting.
            self._loop.call_soon(self._next)
        self.let_go()

    def _next(self) -> None:
        if self._phase is _Phase.HEAD and self._inbox and not self._is_paused:
            data, self._inbox = self._inbox, b""
            self._read(data)

    def leave(self) -> None:
        """Ask whoever speaks through a tunnel to come back later."""
        if self._phase is _Phase.TUNNEL and self._relay is not None:
            self._relay.leave()

    def end_if_idle(self) -> None:
        """Close a connection that serves nothing."""
        if self._phase is _Phase.HEAD and not self._inbox:
            self.close()

    def _end(self) -> None:
        """Close; a client that may be sending still gets to read its answer (RFC 9112 9.6)."""
        self._phase = _Phase.ENDING
        transport = self.transport
        if transport is None:
            return
        if self._lingers and transport.can_write_eof():
            transport.write_eof()
            self._deadline.set(LINGER_SECONDS)
        else:
            self.close()

    def _expired(self) -> None:
        if self._phase is _Phase.HEAD and self._inbox:
            self._refuse(RequestTimeout("The request's head did not come in whole in time."))
        elif self._phase is not _Phase.BUSY:
            self.close()
        elif self._body is not None:
            self._check_body(self._body)
