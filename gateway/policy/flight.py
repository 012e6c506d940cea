"""Upstream requests under way on behalf of the cache: shared, tracked, and outdated by events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from gateway.core.freshness import StoredResponse
from gateway.core.message import Response


class Outdated(IntEnum):
    """What an event, told after the request was sent, makes of its answer; only ever rises."""

    NO = 0
    STALE = 1  # may be kept, not as fresh
    GONE = 2  # may not be kept


@dataclass(frozen=True, slots=True)
class Landed:
    """What came back: `shareable` as others may have it, `stored` when it was kept."""

    response: Response
    shareable: StoredResponse | None = None
    stored: bool = False


@dataclass(slots=True, eq=False)
class Flight:
    """One upstream request under way for a cache key."""

    key: str
    tags: tuple[str, ...]
    outdated: Outdated = Outdated.NO
    task: asyncio.Task[Landed] = field(init=False)


class Flights:
    """Every request under way. A client that leaves does not end the one it began."""

    def __init__(self) -> None:
        self._joinable: dict[str, Flight] = {}
        self._under_way: set[Flight] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def joinable(self, key: str) -> Flight | None:
        """The request to share: one that nothing has outdated."""
        return self._joinable.get(key)

    def start(
        self,
        key: str,
        tags: tuple[str, ...],
        fetch: Callable[[Flight], Coroutine[Any, Any, Landed]],
    ) -> Flight:
        """Send a request in a task of its own; the first of a key may be joined while it lasts."""
        flight = Flight(key, tags)
        flight.task = asyncio.create_task(fetch(flight))
        flight.task.add_done_callback(lambda _: self._land(flight))
        self._under_way.add(flight)
        self._joinable.setdefault(key, flight)
        return flight

    def outdate(self, tag: str, how: Outdated) -> None:
        """An event: who asks from now on asks anew; answers under way are kept as `how` says."""
        for flight in self._under_way:
            if tag in flight.tags:
                flight.outdated = max(flight.outdated, how)
                self._withdraw(flight)

    def abandon(self, flight: Flight) -> None:
        """Nobody waits for this answer any more: a body that streams in is closed unread."""
        flight.task.add_done_callback(self._discard)

    async def close(self) -> None:
        """Wait for everything under way."""
        while self._under_way or self._closing:
            tasks = [*(flight.task for flight in self._under_way), *self._closing]
            await asyncio.gather(*tasks, return_exceptions=True)

    def _land(self, flight: Flight) -> None:
        self._under_way.discard(flight)
        self._withdraw(flight)
        if not flight.task.cancelled():
            flight.task.exception()  # seen: whoever waits raises it, and nobody may be waiting

    def _withdraw(self, flight: Flight) -> None:
        if self._joinable.get(flight.key) is flight:
            del self._joinable[flight.key]

    def _discard(self, task: asyncio.Task[Landed]) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        body = task.result().response.body
        if not isinstance(body, bytes):
            closing = asyncio.create_task(body.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
