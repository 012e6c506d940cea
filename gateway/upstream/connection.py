"""One connection to the upstream: HTTP/1.1 (RFC 9112), one exchange at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from gateway.core.error import UpstreamError, UpstreamMalformed, UpstreamReset, UpstreamTimeout
from gateway.core.header import connection_options
from gateway.upstream.exchange import Exchange
from gateway.upstream.flow import Inflow

_HEAD_BYTES = 64 * 1024  # more than this before a head's end is no head
_RESET = "The upstream closed the connection before its answer was whole."
_MALFORMED = "The upstream's answer is not valid HTTP."
_TIMEOUT = "The upstream did not answer in time; try again."


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: until the first byte, between any two, and for the whole exchange (None: any)."""

    first: float
    idle: float
    total: float | None


class _Message:
    """What is known of the response under way."""

    __slots__ = (
        "fields",
        "has_ended",
        "has_head",
        "head_bytes",
        "is_excessive",
        "is_tunnel",
        "must_close",
        "reason",
        "until_close",
    )

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.reason = b""
        self.head_bytes = 0
        self.has_head = False
        self.has_ended = False
        self.is_tunnel = False
        self.is_excessive = False  # bytes came that belong to no answer
        self.until_close = False  # the body has no length of its own
        self.must_close = False


class Connection(asyncio.Protocol):
    """Sends a request, reads its response, and tells what became of itself.

    `ended` is called once an exchange is over, with whether the connection may be used again: the
    response ended with certain framing, nothing came after it, the request was sent whole, and
    neither side wants to close (RFC 9112 section 9.3). `lost` is called when it is gone.
    `deadline` is when what is under way has taken too long, on the loop's clock; `expire` ends it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        ended: Callable[[Connection, bool], None],
        lost: Callable[[Connection], None],
    ) -> None:
        self._clock = clock
        self._ended = ended
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._inflow: Inflow | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._can_write = True
        self.deadline: float | None = None
        self.idle_since = 0.0
        self.is_counted = True  # against the pool's limit; streams and tunnels are not
        self.has_answered = False  # anything, to the request under way
        self._message = _Message()

    def begin(
        self, head: bytes, timeouts: Timeouts, *, has_body: bool, expects_body: bool
    ) -> Exchange:
        """Send a request's head, and with it its body where it is bytes; its exchange.

        `has_body`: more follows by `write`, and `sent` says when that was all. `expects_body` is
        False for HEAD, whose response ends with its head whatever that announces.
        """
        now = self._clock()
        self._timeouts = timeouts
        self._end_by = float("inf") if timeouts.total is None else now + timeouts.total
        self._expects_body = expects_body
        self._is_sent = not has_body
        self.has_answered = False
        self._message = _Message()
        self._inflow = Inflow(self._pause, self._resume)
        self._exchange = Exchange(self, self._inflow)
        self.deadline = min(now + (timeouts.idle if has_body else timeouts.first), self._end_by)
        self.write(head)
        return self._exchange

    def sent(self) -> None:
        """The request's body is out: from now on the upstream has `timeouts.first` to answer."""
        self._is_sent = True
        if self._inflow is not None and not self._message.has_head:
            self.deadline = min(self._clock() + self._timeouts.first, self._end_by)

    def fail(self, error: Exception) -> None:
        """End what is under way with this error, and the connection."""
        inflow, self._inflow, self._exchange = self._inflow, None, None
        if inflow is not None:
            inflow.fail(error)
        self.abort()

    def expire(self) -> None:
        """The deadline has passed."""
        self.fail(UpstreamTimeout(_TIMEOUT))

    def touch(self) -> None:
        """Something moved: silence is counted from here."""
        if self.deadline is not None:
            self.deadline = min(self._clock() + self._timeouts.idle, self._end_by)

    @property
    def is_open(self) -> bool:
        """True while the transport is neither closed nor closing."""
        return self._transport is not None and not self._transport.is_closing()

    # --- writing ----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send, or buffer; nothing happens on a connection that is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if self._message.is_tunnel:
                self.touch()

    async def drained(self) -> None:
        """Until the upstream takes more, or is gone."""
        while not self._can_write and self.is_open:
            if self._write_waiter is None:
                self._write_waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._write_waiter)

    def write_eof(self) -> None:
        """Say that nothing more will be sent."""
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def abort(self) -> None:
        """Close at once; what was under way must have been ended, or ends as reset."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close an idle connection."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape alone

    def data_received(self, data: bytes) -> None:
        """Read a piece of the response; the reader is woken once for all of it."""
        inflow = self._inflow
        if inflow is None:  # nobody asked: whatever this is, it must not answer the next request
            self.abort()
            return
        self.has_answered = True
        if self._message.is_tunnel:
            inflow.feed(data)
            self.touch()
            inflow.wake()
            return
        if not self._message.has_head:
            self._message.head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(error)
            return
        if self._message.has_ended:
            self._finish()
        elif not self._message.has_head and self._message.head_bytes > _HEAD_BYTES:
            self._refuse(ValueError("its head does not end"))
        else:
            if self._message.has_head and not inflow.is_paused:
                self.touch()
            inflow.wake()

    def eof_received(self) -> bool:
        """The upstream sends no more: the end of a body without a length, else a break."""
        inflow = self._inflow
        if inflow is not None and self._message.is_tunnel:
            inflow.end()
            return True  # the other direction stays open until the tunnel is closed
        if inflow is not None and self._message.has_head and self._message.until_close:
            self._message.must_close = True
            self._finish()
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        """Gone."""
        self._transport = None
        self._can_write = True
        self.resume_writing()
        inflow, self._inflow, self._exchange = self._inflow, None, None
        if inflow is not None:
            inflow.fail(UpstreamReset(_RESET))
        self._lost(self)

    def pause_writing(self) -> None:
        """The upstream takes no more for now."""
        self._can_write = False

    def resume_writing(self) -> None:
        """It takes more."""
        self._can_write = True
        waiter, self._write_waiter = self._write_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- httptools --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A status line begins: ours, an interim one's successor, or one too many."""
        if self._message.has_ended:
            self._message.must_close = self._message.is_excessive = True

    def on_status(self, status: bytes) -> None:
        """A piece of the reason phrase."""
        self._message.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole field; after the head it is a trailer, and dropped (RFC 9110 section 6.5.1)."""
        if not self._message.has_head:
            self._message.fields.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        """The head is in; an interim one (RFC 9110 section 15.2) is passed over."""
        if self._message.has_ended:
            return
        status = self._parser.get_status_code()
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            raise ValueError("it is of another version of HTTP")
        if 100 <= status < 200 and status != 101:
            self._message.fields, self._message.reason = [], b""
            return
        exchange = self._exchange
        assert exchange is not None
        exchange.status = status
        exchange.reason = self._message.reason.decode("latin-1")
        exchange.headers.extend(self._message.fields)
        self._message.until_close = self._check_framing(exchange)
        self._message.has_head = True
        if not self._expects_body:
            # The parser, which knows of no HEAD, would keep only what announces a length.
            options = connection_options(exchange.headers)
            persists = self._parser.get_http_version() == "1.1" or "keep-alive" in options
            self._message.has_ended = True
            self._message.must_close = "close" in options or not persists
            # The parser waits for the body that the head announces: the next message has its own.
            self._parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        """A piece of the body, its chunked coding removed."""
        if self._message.has_ended:
            self._message.must_close = self._message.is_excessive = True
            return
        assert self._inflow is not None
        self._inflow.feed(body)

    def on_message_complete(self) -> None:
        """The end of a message, interim ones included; after a 101 the bytes are not HTTP."""
        if (
            self._message.has_head
            and not self._message.has_ended
            and self._parser.get_status_code() != 101
        ):
            self._end_message()

    # --- the message under way --------------------------------------------------------------------

    def _check_framing(self, exchange: Exchange) -> bool:
        """True when the body ends with the connection (RFC 9112 section 6.3)."""
        headers = exchange.headers
        codings = headers.getall("Transfer-Encoding", ())
        lengths = headers.getall("Content-Length", ())
        if codings:
            if lengths or len(codings) > 1 or codings[0].strip().lower() != "chunked":
                raise ValueError("its framing is ambiguous")
            return False
        if len(set(lengths)) > 1:
            raise ValueError("it has two lengths")
        return not lengths and exchange.status not in (101, 204, 304)

    def _end_message(self) -> None:
        self._message.has_ended = True
        if not self._parser.should_keep_alive():
            self._message.must_close = True

    def _finish(self) -> None:
        """The response is whole: its reader has all of it, the connection is free or done for."""
        inflow, self._inflow, self._exchange = self._inflow, None, None
        assert inflow is not None
        self.deadline = None
        if self._message.is_excessive:
            inflow.fail(UpstreamMalformed(f"{_MALFORMED} More came than it announced."))
        else:
            inflow.end()
        if inflow.is_paused:
            self._resume()
        reusable = self._is_sent and not self._message.must_close and self.is_open
        self._message = _Message()
        self._ended(self, reusable)

    def _upgrade(self, rest: bytes) -> None:
        inflow = self._inflow
        assert inflow is not None
        if not self._message.has_head or self._parser.get_status_code() != 101:
            self._refuse(ValueError("it upgrades without saying so"))
            return
        self._message.is_tunnel = True
        self._end_by = float("inf")
        self.touch()
        if rest:
            inflow.feed(rest)
        inflow.wake()

    def _refuse(self, error: Exception) -> None:
        cause = error.__context__ or error  # httptools wraps what a callback raised
        said = f" {cause}." if isinstance(cause, ValueError) else ""
        failure: UpstreamError = UpstreamMalformed(f"{_MALFORMED}{said}".replace(". its", ": its"))
        failure.__cause__ = error
        self.fail(failure)

    def _pause(self) -> None:
        """The reader is slow: the upstream waits, and silence is not its fault."""
        if self.is_open and self._transport is not None:
            self._transport.pause_reading()
            self.deadline = self._end_by

    def _resume(self) -> None:
        if self.is_open and self._transport is not None:
            self._transport.resume_reading()
            if self._inflow is not None:
                self.touch()
