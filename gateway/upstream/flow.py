"""Bytes on their way from a socket to a reader: buffered, bounded, one reader at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

_HIGH_BYTES = 256 * 1024  # beyond it the socket is not read
_LOW_BYTES = 64 * 1024  # below it, it is again


class Inflow:
    """What has arrived and was not read yet; `pause` and `resume` hold the socket back.

    `size` counts the bytes waiting. It ends once, well (`end`) or not (`fail`); what arrived before
    a failure is still read.
    """

    __slots__ = (
        "_pause",
        "_resume",
        "_waiter",
        "failure",
        "has_ended",
        "is_paused",
        "parts",
        "size",
    )

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._waiter: asyncio.Future[None] | None = None
        self.parts: deque[bytes] = deque()
        self.size = 0
        self.has_ended = False
        self.is_paused = False
        self.failure: Exception | None = None

    def feed(self, data: bytes) -> None:
        """Add bytes; `wake` wakes the reader, once for all that a read of the socket brought."""
        self.parts.append(data)
        self.size += len(data)
        if self.size > _HIGH_BYTES and not self.is_paused:
            self.is_paused = True
            self._pause()

    def end(self) -> None:
        """Nothing more will come."""
        self.has_ended = True
        self.wake()

    def fail(self, error: Exception) -> None:
        """Nothing more will come, and what came is not all."""
        if not self.has_ended and self.failure is None:
            self.failure = error
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def changed(self) -> None:
        """Until something is there that was not before. Raises the failure."""
        if self.failure is not None:
            raise self.failure
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        await waiter

    async def next(self) -> bytes:
        """The next bytes, in the pieces they came in; empty at the end. Raises the failure."""
        while not self.parts:
            if self.has_ended:
                return b""
            await self.changed()
        data = self.parts.popleft()
        self.size -= len(data)
        if self.is_paused and self.size < _LOW_BYTES:
            self.is_paused = False
            self._resume()
        return data
