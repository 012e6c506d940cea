"""Cached responses in two tiers: this process's memory, and a store that replicas share.

The memory answers alone while it has something fresh. A purge on one replica is heard by all; while
the shared store is away, each goes on with its own memory, and what it purges then is made good
before anything is taken from the shared store again.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from prometheus_client import Counter

from gateway.core.error import StoreUnavailable
from gateway.core.freshness import StoredResponse
from gateway.store.response import Held, ResponseStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

NEAR, FAR = "memory", "redis"
_AWAY_SECONDS = 1.0  # after a failure the shared store is left alone for so long
_MAX_WRITES = 256  # under way to the shared store: beyond, an answer stays in memory alone
_MAX_OWED = 10_000  # purges that an absent store is owed; they are remembered by tag


class NearStore(ResponseStore, Protocol):
    """A store of responses that never waits."""

    def peek(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """The stored variants of a key, newest first."""
        ...

    def drop(self, tag: str) -> int:
        """Forget every response with this tag; how many there were."""
        ...

    def age(self, tag: str, now: float) -> int:
        """Keep every response with this tag, but as stale from `now` on; how many there are."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


Hear = Callable[[str, bool], object]


def purge_message(replica: str, tag: str, now: float | None) -> bytes:
    """What replicas tell each other of a purge, or of an expiry from `now` on."""
    return json.dumps([replica, tag, now]).encode()  # which orjson would refuse: a tag is any text


class TieredResponseStore:
    """A `ResponseStore` of both; `near` never waits, `far` may be away.

    `replica` is this process's name among those that hear of purges. Each of `listeners` is called
    with the tag of a purge elsewhere, and True for a purge, False for an expiry.
    """

    def __init__(
        self,
        near: NearStore,
        far: ResponseStore,
        replica: str,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._near = near
        self._far = far
        self._replica = replica
        self._now = now
        self.listeners: list[Hear] = []
        self._writes: dict[asyncio.Task[None], str] = {}
        self._filling: dict[str, int] = {}  # lookups under way, by tag
        self._outdated: set[str] = set()  # of those, what was purged meanwhile
        self._owed: OrderedDict[str, float | None] = OrderedDict()
        self._away_until: float | None = None
        self._errors = metrics.store_errors_total.labels("responses")
        lookups = metrics.cache_lookups_total.labels
        self._near_hits, self._near_misses = lookups(NEAR, "hit"), lookups(NEAR, "miss")
        self._far_hits, self._far_misses = lookups(FAR, "hit"), lookups(FAR, "miss")
        self._log = get_logger("cache")

    def peek(self, tag: str, key: str) -> Sequence[StoredResponse] | None:
        """The variants in memory if one is fresh; else the shared store must be asked."""
        found = self._near.peek(tag, key)
        now = self._now()
        for each in found:
            if each.terms.is_fresh(now):
                self._near_hits.inc()
                return found
        return None

    def held(self, tag: str, key: str) -> Held | None:
        """What is in memory."""
        held = self._near.held(tag, key)
        return None if held is None else _NearlyHeld(held, self._near_hits)

    async def lookup(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """The variants in memory if one is fresh, else those that the replicas share."""
        fresh = self.peek(tag, key)
        if fresh is not None:
            return fresh
        self._near_misses.inc()
        if not self._is_away() and (found := await self._fill(tag, key)):
            return found
        return self._near.peek(tag, key)

    async def store(self, tag: str, key: str, response: StoredResponse) -> None:
        """Keep a variant in memory now, and in the shared store soon."""
        await self._near.store(tag, key, response)
        if self._is_away() or len(self._writes) >= _MAX_WRITES:
            return
        task = asyncio.create_task(self._write(tag, key, response))
        self._writes[task] = tag
        task.add_done_callback(self._writes.pop)

    async def purge(self, tag: str) -> int:
        """Forget every response with this tag, everywhere; how many there were."""
        count = self._near.drop(tag)
        return max(count, await self._tell(tag, None))

    async def expire(self, tag: str, now: float) -> int:
        """Keep every response with this tag, but as stale from `now` on; how many there are."""
        count = self._near.age(tag, now)
        return max(count, await self._tell(tag, now))

    def hear(self, message: bytes) -> None:
        """Do what another replica did. Raises ValueError for what is no such message."""
        replica, tag, now = json.loads(message)
        if replica == self._replica:
            return
        self._outdate(tag)
        if now is None:
            self._near.drop(tag)
        else:
            self._near.age(tag, now)
        for listener in self.listeners:
            listener(tag, now is None)

    def missed(self) -> None:
        """Messages were lost: of what is in memory, nobody knows whether it was purged."""
        self._outdated.update(self._filling)
        self._near.clear()

    async def close(self) -> None:
        """Wait for what is on its way to the shared store."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def _fill(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """What the shared store has, kept in memory unless it was purged on the way."""
        self._filling[tag] = self._filling.get(tag, 0) + 1
        try:
            if tag in self._owed and not await self._pay(tag):
                return ()
            found = await self._far.lookup(tag, key)
        except StoreUnavailable as error:
            self._failed("lookup", error)
            return ()
        finally:
            outdated = self._filled(tag)
        self._succeeded()
        if outdated or not found:
            self._far_misses.inc()
            return ()
        self._far_hits.inc()
        for each in reversed(found):
            await self._near.store(tag, key, each)
        return found

    def _filled(self, tag: str) -> bool:
        """The end of a lookup; True when what it found was purged meanwhile."""
        outdated = tag in self._outdated
        self._filling[tag] -= 1
        if not self._filling[tag]:
            del self._filling[tag]
            self._outdated.discard(tag)
        return outdated

    async def _write(self, tag: str, key: str, response: StoredResponse) -> None:
        try:
            if tag in self._owed and not await self._pay(tag):
                return
            await self._far.store(tag, key, response)
        except StoreUnavailable as error:
            self._failed("store", error)
        else:
            self._succeeded()

    async def _tell(self, tag: str, now: float | None) -> int:
        """Purge the shared store after what was written to it before; it may be owed that."""
        self._outdate(tag)
        earlier = [task for task, written in self._writes.items() if written == tag]
        if earlier:
            await asyncio.wait(earlier)
        if not self._is_away():
            try:
                count = await self._change(tag, now)
            except StoreUnavailable as error:
                self._failed("forget", error)
            else:
                self._succeeded()
                self._owed.pop(tag, None)
                return count
        self._owe(tag, now)
        return 0

    async def _change(self, tag: str, now: float | None) -> int:
        if now is None:
            return await self._far.purge(tag)
        return await self._far.expire(tag, now)

    async def _pay(self, tag: str) -> bool:
        """Make good a purge that failed; False when it is not known to have been done."""
        now = self._owed[tag]
        await self._change(tag, now)
        if self._owed.get(tag, now) == now:
            self._owed.pop(tag, None)
        return tag not in self._owed

    def _owe(self, tag: str, now: float | None) -> None:
        if self._owed.get(tag, now) is None:  # a purge is more than an expiry
            now = None
        self._owed[tag] = now
        self._owed.move_to_end(tag)
        if len(self._owed) > _MAX_OWED:
            self._owed.popitem(last=False)

    def _outdate(self, tag: str) -> None:
        if tag in self._filling:
            self._outdated.add(tag)

    def _is_away(self) -> bool:
        if self._away_until is None:
            return False
        return asyncio.get_running_loop().time() < self._away_until

    def _failed(self, operation: str, error: StoreUnavailable) -> None:
        """Count each failure, log the first: until one succeeds they say nothing new."""
        self._errors.inc()
        if self._away_until is None:
            self._log.warning("cache_tier_away", operation=operation, error=error.detail)
        self._away_until = asyncio.get_running_loop().time() + _AWAY_SECONDS

    def _succeeded(self) -> None:
        if self._away_until is not None:
            self._away_until = None
            self._log.info("cache_tier_back", owed=len(self._owed))


class _NearlyHeld:
    """What is in memory, its lookups counted."""

    __slots__ = ("_held", "_hits")

    def __init__(self, held: Held, hits: Counter) -> None:
        self._held = held
        self._hits = hits

    @property
    def variants(self) -> Sequence[StoredResponse]:
        """As held."""
        return self._held.variants

    def found(self) -> None:
        """Count a hit of this tier."""
        self._held.found()
        self._hits.inc()
