"""The connections to the upstream: kept while they are fresh, bounded, waited for in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from gateway.core.error import UpstreamOverloaded
from gateway.upstream.connection import Connection

_TICK_SECONDS = 0.05  # how late a deadline may be noticed
_TICK_SHARE_SECONDS = 20e-6  # and for each busy connection: looking costs a bounded share of time
_RETRY_AFTER_SECONDS = 1


class Pool:
    """At most `size` connections with a request under way; who finds none free waits in turn.

    The newest idle connection is used first, so that few stay warm and the rest age out after
    `keepalive_seconds`. Streams and tunnels do not count once they are known: see `uncount`.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        size: int,
        max_waiting: int,
        wait_seconds: float,
        keepalive_seconds: float,
        max_streams: int,
    ) -> None:
        self._connect = connect
        self._clock = asyncio.get_running_loop().time
        self._size = size
        self._max_waiting = max_waiting
        self._wait_seconds = wait_seconds
        self._keepalive_seconds = keepalive_seconds
        self._max_streams = max_streams
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._counted = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._ticker: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def open_count(self) -> int:
        """Every connection, busy or idle."""
        return len(self._idle) + len(self._busy)

    async def acquire(self, *, essential: bool, fresh: bool = False) -> tuple[Connection, bool]:
        """A connection, and whether it was used before.

        `essential` requests are the gateway's own: they wait for no place. `fresh` takes a new
        connection. Raises `UpstreamOverloaded`, or what `connect` raises.
        """
        if not essential:
            if self._counted >= self._size:
                await self._wait()  # who lets us in counts us
            else:
                self._counted += 1
        try:
            while self._idle and not fresh:
                connection = self._idle.pop()
                if self._is_usable(connection):
                    self._take(connection, essential=essential)
                    return connection, True
                connection.abort()
            connection = await self._connect()
        except BaseException:  # a caller who leaves, too, gives its place back
            if not essential:
                self._free()
            raise
        self._take(connection, essential=essential)
        return connection, False

    def at_hand(self) -> Connection | None:
        """An idle connection; None when one must be made or waited for."""
        if self._counted >= self._size:
            return None
        while self._idle:
            connection = self._idle.pop()
            if self._is_usable(connection):
                self._counted += 1
                self._take(connection, essential=False)
                return connection
            connection.abort()
        return None

    def uncount(self, connection: Connection) -> None:
        """The exchange is a stream or a tunnel: it may last, and takes no request's place.

        Raises `UpstreamOverloaded` when there are `max_streams` already.
        """
        streams = sum(not each.is_counted for each in self._busy)
        if streams >= self._max_streams:
            raise UpstreamOverloaded(
                "Too many streams are open; try again shortly.",
                headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
            )
        if connection.is_counted and connection in self._busy:
            connection.is_counted = False
            self._free()

    def ended(self, connection: Connection, reusable: bool) -> None:  # noqa: FBT001 - a callback's
        """An exchange is over."""
        self._leave(connection)
        if reusable and not self._is_closed:
            connection.idle_since = self._clock()
            self._idle.append(connection)
        else:
            connection.abort()  # all of the answer is in; what is left to send, nobody reads

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self._leave(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close every connection; who waits for one is turned away."""
        self._is_closed = True
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        for connection in [*self._idle, *self._busy]:
            connection.abort()
        self._idle.clear()
        for waiting in self._waiting:
            waiting.cancel()

    def _take(self, connection: Connection, *, essential: bool) -> None:
        connection.is_counted = not essential
        self._busy.add(connection)
        if self._ticker is None:
            loop = asyncio.get_running_loop()
            self._ticker = loop.call_later(_TICK_SECONDS, self._tick)

    def _leave(self, connection: Connection) -> None:
        if connection in self._busy:
            self._busy.discard(connection)
            if connection.is_counted:
                self._free()

    def _is_usable(self, connection: Connection) -> bool:
        age = self._clock() - connection.idle_since
        return connection.is_open and age < self._keepalive_seconds

    async def _wait(self) -> None:
        """Until a place is free: in the order of arrival, and not for long."""
        if len(self._waiting) >= self._max_waiting:
            raise self._overloaded()
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        # Not asyncio.timeout: the caller may not be in a task yet.
        timer = loop.call_later(self._wait_seconds, self._turn_away, place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._free()  # the place was given, and nobody takes it
            raise
        finally:
            timer.cancel()
            if place in self._waiting:
                self._waiting.remove(place)

    def _free(self) -> None:
        """A place is free: the next in the row has it, counted at once, lest another slip in."""
        self._counted -= 1
        while self._waiting and self._counted < self._size:
            place = self._waiting.popleft()
            if not place.done():
                self._counted += 1
                place.set_result(None)

    def _turn_away(self, place: asyncio.Future[None]) -> None:
        if not place.done():
            place.set_exception(self._overloaded())

    def _overloaded(self) -> UpstreamOverloaded:
        return UpstreamOverloaded(
            "The upstream is busy with as many requests as it may get; try again shortly.",
            headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
        )

    def _tick(self) -> None:
        """Look once for all connections whose time is up: cheaper than a timer each request."""
        now = asyncio.get_running_loop().time()
        for connection in [each for each in self._busy if each.deadline <= now]:
            connection.expire()
        oldest = now - self._keepalive_seconds
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle.pop(0).abort()
        self._ticker = None
        if self._busy or self._idle:
            pause = max(_TICK_SECONDS, len(self._busy) * _TICK_SHARE_SECONDS)
            self._ticker = asyncio.get_running_loop().call_later(pause, self._tick)
