"""A streamed body that comes by itself: each piece is made once, for any number of readers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from gateway.core.error import UpstreamError
from gateway.core.message import BodyStream

EVICTED = b": this client reads too slowly, please reconnect\n\n"
_TOO_SLOW = "The client reads too slowly for the job's stream."
_BROKEN_OFF = "The job's stream broke off."


class Piece:
    """Bytes of a body, and the same framed as a chunk (RFC 9112 section 7.1)."""

    __slots__ = ("_start", "chunk")

    def __init__(self, data: bytes) -> None:
        size = b"%x\r\n" % len(data)
        self._start = len(size)
        self.chunk = b"%b%b\r\n" % (size, data)

    def __len__(self) -> int:
        return len(self.chunk) - self._start - 2

    @property
    def data(self) -> bytes:
        """The bytes alone."""
        return self.chunk[self._start : -2]


class Outlet(Protocol):
    """A client's connection, as a feed writes to it."""

    def take(self, chunks: bytes) -> int:
        """Send bytes framed as chunks; how many bytes then wait to be sent."""
        ...

    def finish(self, *, complete: bool) -> None:
        """Nothing more comes: end the answer in order, or break it off."""
        ...


class Source(Protocol):
    """Where a feed's pieces come from."""

    def left(self, feed: Feed) -> None:
        """Its reader is gone, or has got everything."""
        ...

    def evicted(self) -> None:
        """A reader was cut off."""
        ...


class Feed(BodyStream):
    """One reader's end; `place` is the first piece it gets of all that its source tells.

    Given an outlet, pieces are written there as they come, without a task; else they are read as
    those of any body. A reader for whom more than `max_backlog` bytes wait when the next piece
    comes is cut off.
    """

    __slots__ = (
        "_backlog",
        "_has_ended",
        "_is_whole",
        "_max_backlog",
        "_news",
        "_outlet",
        "_source",
        "_waiting",
        "place",
    )

    def __init__(self, source: Source, place: int, max_backlog: int) -> None:
        super().__init__(None)
        self.place = place
        self._source = source
        self._max_backlog = max_backlog
        self._outlet: Outlet | None = None
        self._news: asyncio.Event | None = None
        self._waiting: list[Piece] = []
        self._backlog = 0
        self._has_ended = self._is_whole = False

    def attach(self, outlet: Outlet) -> bytes:
        """Write to `outlet` from now on; what came before, framed, to be sent with the head.

        `start` when that is sent.
        """
        self._outlet = outlet
        first = b"".join([piece.chunk for piece in self._waiting])
        self.size = self._backlog
        self._waiting, self._backlog = [], 0
        return first

    def start(self) -> None:
        """What `attach` gave is sent: end the answer if that was all."""
        if self._has_ended and self._outlet is not None:
            self._outlet.finish(complete=self._is_whole)

    def fill(self, pieces: Sequence[Piece]) -> None:
        """What the reader gets first, whatever its size."""
        self._waiting.extend(pieces)
        self._backlog += sum(map(len, pieces))

    def push(self, piece: Piece) -> bool:
        """The next piece; False for a reader that gets no more."""
        if self._has_ended or self._closed:
            return False
        if self._outlet is None:
            self._waiting.append(piece)
            self._backlog += len(piece)
            self._tell()
            backlog = self._backlog
        else:
            self.size += len(piece)
            backlog = self._outlet.take(piece.chunk)
        if backlog - len(piece.chunk) > self._max_backlog:
            self._evict()
            return False
        return True

    def end(self, farewell: bytes = b"", *, complete: bool = True) -> None:
        """Nothing more comes, after a `farewell`; not `complete` when the stream broke off."""
        if self._has_ended or self._closed:
            return
        if farewell and not self.push(Piece(farewell)):
            return
        self._has_ended, self._is_whole = True, complete
        self._tell()
        if self._outlet is not None:
            self._outlet.finish(complete=complete)

    def close(self, *, complete: bool = False) -> None:
        """The reader is gone; with `complete`, it got everything. Runs the closers, once."""
        if self._closed:
            return
        self._closed = True
        self.is_complete = self.is_complete or complete
        self._outlet = None
        self._source.left(self)
        for closer in self.closers:
            closer()

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._has_ended:
                if not self._is_whole:
                    raise UpstreamError(_BROKEN_OFF)
                self.is_complete = True
                raise StopAsyncIteration
            self._news = asyncio.Event()
            await self._news.wait()
        data = b"".join([piece.data for piece in self._waiting])
        self._waiting, self._backlog = [], 0
        self.size += len(data)
        return data

    async def aclose(self) -> None:
        """As any body's."""
        self.close()

    def _evict(self) -> None:
        """Cut the reader off; what still reaches it says why."""
        self._source.evicted()
        self._has_ended = True
        self._waiting.append(Piece(EVICTED))
        self._tell()
        if self._outlet is not None:
            self._outlet.take(self._waiting.pop().chunk)
            self._outlet.finish(complete=False)

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
