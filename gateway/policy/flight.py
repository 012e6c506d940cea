"""Upstream requests under way on behalf of the cache: shared, tracked, and outdated by events."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial

from gateway.core.freshness import StoredResponse
from gateway.core.message import Response

_REMEMBERED_KEYS = 1024  # whose answers could not be shared


class Outdated(IntEnum):
    """What an event, told after the request was sent, makes of its answer; only ever rises."""

    NO = 0
    STALE = 1  # may be kept, not as fresh
    GONE = 2  # may not be kept


@dataclass(slots=True)
class Landed:
    """What came of a request: the upstream's answer, or a stored one that stands for it.

    `shareable` is what others may have of it, `stored` whether it was kept. `fwd_status` is the
    upstream's status where it is not the answer's; `detail` says why a stored one is served.
    """

    answer: Response | StoredResponse
    shareable: StoredResponse | None = None
    stored: bool = False
    fwd_status: int | None = None
    detail: str = ""


@dataclass(slots=True, eq=False)
class Flight:
    """One upstream request under way for a cache key.

    `shared` is what others may have once it is `over`; `left` says that its client went before
    there was an answer. `task` is set for one that goes on without its client. While `collecting`,
    the body is still coming in: whoever collects it releases the flight.
    """

    tag: str
    key: str
    outdated: Outdated = Outdated.NO
    over: bool = False
    left: bool = False
    collecting: bool = False
    shared: StoredResponse | None = None
    task: asyncio.Task[Landed] | None = None
    _landing: asyncio.Future[None] | None = field(default=None, repr=False)

    @property
    def is_awaited(self) -> bool:
        """True once another request has waited for it."""
        return self._landing is not None

    async def wait(self, seconds: float | None = None) -> None:
        """Return when it is over, or after `seconds`."""
        if not self.over:
            if self._landing is None:
                self._landing = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._landing}, timeout=seconds)

    async def result(self) -> Landed:
        """What came of one with a task of its own. Raises what that raised."""
        if self.task is None:
            raise RuntimeError("the flight has no task")
        return await self.task

    def end(self) -> None:
        """Tell whoever waits."""
        self.over = True
        if self._landing is not None and not self._landing.done():
            self._landing.set_result(None)


Fetch = Callable[[Flight], Awaitable[Landed]]


class Flights:
    """Every request under way, and which keys have nothing to share."""

    def __init__(self) -> None:
        self._joinable: dict[str, Flight] = {}
        self._under_way: set[Flight] = set()
        self._tasks: set[asyncio.Task[Landed]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._alone: OrderedDict[int, None] = OrderedDict()  # hashes: clients make keys long

    def joinable(self, key: str) -> Flight | None:
        """The request to share: one that nothing has outdated, of a key worth waiting for."""
        return None if hash(key) in self._alone else self._joinable.get(key)

    async def fly(self, flight: Flight, fetch: Fetch, *, joinable: bool = True) -> Landed:
        """Send a request on behalf of its client alone: it ends when the client leaves.

        The first of a key may be joined while it lasts, if it is `joinable` at all.
        """
        self._under_way.add(flight)
        if joinable:
            self._joinable.setdefault(flight.key, flight)
        try:
            landed = await fetch(flight)
        except asyncio.CancelledError:
            flight.left = True
            raise
        else:
            self._note(flight, landed)
            return landed
        finally:
            self._land(flight)

    def start(self, tag: str, key: str, fetch: Fetch) -> Flight:
        """Send a request in a task of its own, which a client that leaves does not end."""
        flight = Flight(tag, key)
        self._under_way.add(flight)  # before the task begins: events count from now on
        self._joinable.setdefault(key, flight)
        flight.task = task = asyncio.create_task(self.fly(flight, fetch))
        self._tasks.add(task)
        task.add_done_callback(partial(self._finished, flight))
        return flight

    def release(self, flight: Flight) -> None:
        """The last of its body is in: events have nothing more to say to it."""
        self._under_way.discard(flight)

    def outdate(self, tag: str, how: Outdated) -> None:
        """An event: who asks from now on asks anew; answers under way are kept as `how` says."""
        for flight in self._under_way:
            if flight.tag == tag:
                flight.outdated = max(flight.outdated, how)
                self._withdraw(flight)

    def abandon(self, flight: Flight) -> None:
        """Nobody waits for this answer any more: a body that streams in is closed unread."""
        if flight.task is not None:
            flight.task.add_done_callback(self._discard)

    async def close(self) -> None:
        """Wait for every request that has a task of its own."""
        while self._tasks or self._closing:
            await asyncio.gather(*self._tasks, *self._closing, return_exceptions=True)

    def _note(self, flight: Flight, landed: Landed) -> None:
        """Waiting for a key whose answers cannot be shared would only double what all wait."""
        flight.shared = landed.shareable
        if landed.shareable is not None:
            self._alone.pop(hash(flight.key), None)
        elif flight.is_awaited and _is_settled(landed):
            self._alone[hash(flight.key)] = None
            if len(self._alone) > _REMEMBERED_KEYS:
                self._alone.popitem(last=False)

    def _withdraw(self, flight: Flight) -> None:
        if self._joinable.get(flight.key) is flight:
            del self._joinable[flight.key]

    def _land(self, flight: Flight) -> None:
        self._withdraw(flight)
        if not flight.collecting:
            self.release(flight)
        flight.end()

    def _finished(self, flight: Flight, task: asyncio.Task[Landed]) -> None:
        self._tasks.discard(task)
        self._land(flight)  # a task that was cancelled before it began has not landed yet
        if not task.cancelled():
            task.exception()  # seen: whoever waits raises it, and nobody may be waiting

    def _discard(self, task: asyncio.Task[Landed]) -> None:
        if task.cancelled() or task.exception() is not None:
            return
        answer = task.result().answer
        if isinstance(answer, Response) and not isinstance(answer.body, bytes):
            closing = asyncio.create_task(answer.body.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _is_settled(landed: Landed) -> bool:
    """True when the next answer will be no more shareable; a failure says nothing of it."""
    return isinstance(landed.answer, Response) and landed.answer.status < 500
