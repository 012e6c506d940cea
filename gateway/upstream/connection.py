"""One connection to the upstream: sockets and time; one exchange at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from gateway.core.error import UpstreamError, UpstreamReset, UpstreamTimeout
from gateway.upstream.exchange import Exchange
from gateway.upstream.flow import Inflow
from gateway.upstream.response import Expected, ResponseReader

_RESET = "The upstream closed the connection before its answer was whole."
_TIMEOUT = "The upstream did not answer in time; try again."
_NEVER = float("inf")
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: until the first byte, between any two, and for the whole exchange (None: any)."""

    first: float
    idle: float
    total: float | None


class Sink(Protocol):
    """What a relayed request's answer goes to; one of these is called, once."""

    def length_of(self, head: bytes) -> int | None:
        """The length of the body after a head, bytes for bytes as one that was read before.

        None for any other: its answer is read as an exchange.
        """
        ...

    def whole(self, head: bytes, body: bytes) -> None:
        """The answer with a known head is in; the connection has gone back."""
        ...

    def begun(self, exchange: Exchange, head: bytes) -> None:
        """An answer with another head begins; empty where the head is not in whole."""
        ...

    def failed(self, error: UpstreamError, *, answered: bool) -> None:
        """There is no answer; `answered` says that something of one came."""
        ...


class Connection(asyncio.Protocol):
    """Sends a request, reads its response, and tells what became of itself.

    `ended` is called once an exchange is over, with whether the connection may be used again: the
    response ended with certain framing, nothing came after it, the request was sent whole, and
    neither side wants to close (RFC 9112 section 9.3). `broke` is called with what ended a response
    whose head was there already; `lost` when the connection is gone.
    `deadline` is when what is under way has taken too long, on the loop's clock; `expire` ends it.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        ended: Callable[[Connection, bool], None],
        broke: Callable[[Exception], None],
        lost: Callable[[Connection], None],
    ) -> None:
        self._clock = clock
        self._ended = ended
        self._broke = broke
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._reader: ResponseReader | None = None
        self._inflow: Inflow | None = None
        self._sink: Sink | None = None
        self._expected = Expected()
        self._early = b""  # of a relayed request's answer, whose head is known
        self._sender: asyncio.Task[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._can_write = True
        self.deadline = _NEVER
        self.idle_since = 0.0
        self.is_counted = True  # against the pool's limit; streams and tunnels are not
        self.has_answered = False  # anything, to the request under way

    def begin(
        self, head: bytes, timeouts: Timeouts, expected: Expected, *, has_body: bool
    ) -> Exchange:
        """Send a request's head, and with it its body where it is bytes; its exchange.

        `has_body`: more follows by `write`; see `sends`.
        """
        exchange = self._open(expected)
        self._send(head, timeouts, has_body=has_body)
        return exchange

    def relay(self, head: bytes, timeouts: Timeouts, expected: Expected, sink: Sink) -> None:
        """Send a request without a body, whose answer is likely one that came before."""
        self._sink = sink
        self._expected = expected
        self._send(head, timeouts, has_body=False)

    def _open(self, expected: Expected) -> Exchange:
        self._inflow = Inflow(self._pause, self._resume)
        exchange = Exchange(self, self._inflow)
        self._reader = ResponseReader(exchange, self._inflow, expected)
        return exchange

    def _send(self, head: bytes, timeouts: Timeouts, *, has_body: bool) -> None:
        now = self._clock()
        self._timeouts = timeouts
        self._end_by = _NEVER if timeouts.total is None else now + timeouts.total
        self._is_sent = not has_body
        self.has_answered = False
        self.deadline = self._end_by if has_body else min(now + timeouts.first, self._end_by)
        self.write(head)

    def sends(self, sender: asyncio.Task[None]) -> None:
        """The task that sends the body: it ends with the exchange, whatever it waits for."""
        self._sender = sender

    def sent(self) -> None:
        """The request's body is out: from now on the upstream has `timeouts.first` to answer."""
        self._is_sent = True
        if self._reader is not None and not self._reader.has_head:
            self.deadline = min(self._clock() + self._timeouts.first, self._end_by)

    def lasts(self, timeouts: Timeouts) -> None:
        """The response turned out to be a stream or a tunnel: other times count."""
        self._timeouts = timeouts
        self._end_by = _NEVER
        self._touch()

    def fail(self, error: Exception) -> None:
        """End what is under way with this error, and the connection."""
        reader, inflow, sink = self._reader, self._inflow, self._sink
        self._let_go()
        if inflow is not None and reader is not None:
            if reader.has_head and not inflow.has_ended:
                self._broke(error)
            inflow.fail(error)
        self.abort()
        if sink is not None:
            assert isinstance(error, UpstreamError)  # there is no body of ours that could fail
            sink.failed(error, answered=self.has_answered)

    def expire(self) -> None:
        """The deadline has passed."""
        self.fail(UpstreamTimeout(_TIMEOUT))

    @property
    def is_open(self) -> bool:
        """True while the transport is neither closed nor closing."""
        return self._transport is not None and not self._transport.is_closing()

    # --- writing ----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send, or buffer; nothing happens on a connection that is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            if self._reader is not None and self._reader.is_tunnel:
                self._touch()

    async def drained(self) -> None:
        """Until the upstream takes more, or is gone; only this wait is the upstream's."""
        while not self._can_write and self.is_open:
            self._touch()
            if self._write_waiter is None:
                self._write_waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._write_waiter)
            if not self._is_sent and self._reader is not None and not self._reader.has_head:
                self.deadline = self._end_by

    def write_eof(self) -> None:
        """Say that nothing more will be sent."""
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    def abort(self) -> None:
        """Close at once; what was under way must have been ended, or ends as reset."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape alone

    def data_received(self, data: bytes) -> None:
        """Read a piece of the response; its reader is woken once for all of it."""
        if self._sink is not None:
            data = self._relayed(self._sink, data)
            if not data:
                return
        reader, inflow = self._reader, self._inflow
        if reader is None or inflow is None:
            self.abort()  # nobody asked: whatever this is, it must not answer the next request
            return
        self.has_answered = True
        if reader.is_tunnel:
            inflow.feed(data)
        else:
            try:
                reader.feed(data)
            except UpstreamError as error:
                self.fail(error)
                return
            if reader.has_ended:
                self._finish(reader, inflow)
                return
        if reader.has_head and not inflow.is_paused:
            self._touch()
        inflow.wake()

    def eof_received(self) -> bool:
        """The upstream sends no more: the end of a body without a length, else a break."""
        reader, inflow = self._reader, self._inflow
        if reader is None or inflow is None:
            return False
        if reader.is_tunnel:
            inflow.end()
            return True  # the other direction stays open until the tunnel is closed
        if reader.has_head and reader.until_close:
            reader.persists = False
            self._finish(reader, inflow)
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        """Gone."""
        self._transport = None
        self.resume_writing()
        self.fail(UpstreamReset(_RESET))
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

    # --- the exchange under way, or the answer relayed --------------------------------------------

    def _finish(self, reader: ResponseReader, inflow: Inflow) -> None:
        """The response is whole: its reader has all of it, the connection is free or done for."""
        reusable = self._is_sent and reader.persists and self.is_open
        if inflow.is_paused:
            self._resume()
        self._let_go()
        inflow.end()
        self._ended(self, reusable)

    def _relayed(self, sink: Sink, data: bytes) -> bytes:
        """Take an answer whose head is known; what is none is given back, to be read."""
        self.has_answered = True
        data = self._early + data if self._early else data
        end = data.find(_HEAD_END) + len(_HEAD_END)
        head = data[:end] if end >= len(_HEAD_END) else b""
        length = sink.length_of(head) if head else None
        missing = -1 if length is None else end + length - len(data)
        if missing > 0:
            self._early = data
            self._touch()
            return b""
        self._early = b""
        self._sink = None
        if missing < 0:
            sink.begun(self._open(self._expected), head)
            return data
        self.deadline = _NEVER
        self._ended(self, self.is_open)
        sink.whole(head, data[end:])
        return b""

    def _let_go(self) -> None:
        self._reader = self._inflow = self._sink = None
        self._early = b""
        self.deadline = _NEVER
        sender, self._sender = self._sender, None
        if sender is not None and not sender.done():
            sender.cancel()

    def _touch(self) -> None:
        """Something moved: silence is counted from here."""
        self.deadline = min(self._clock() + self._timeouts.idle, self._end_by)

    def _pause(self) -> None:
        """The reader is slow: the upstream waits, and silence is not its fault."""
        if self.is_open and self._transport is not None:
            self._transport.pause_reading()
            self.deadline = self._end_by

    def _resume(self) -> None:
        if self.is_open and self._transport is not None:
            self._transport.resume_reading()
            if self._reader is not None:
                self._touch()
