"""Cached responses in this process's memory: bounded in bytes, SIEVE decides what goes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gateway.core.freshness import StoredResponse
from gateway.store.response import Held
from gateway.telemetry.metric import Metrics

MAX_VARIANTS = 8  # of one key: what `Vary` lets a client multiply
TIER = "memory"
# An entry's share of the tables that hold it: their slots are 24 to 40 bytes, a third of them free.
_TABLE_BYTES = 104


@dataclass(slots=True, eq=False)
class _Slot:
    """A key's variants, newest first, and their place between an older and a newer slot."""

    tag: str
    key: str
    variants: tuple[StoredResponse, ...] = ()
    size_bytes: int = 0
    visited: bool = False
    older: _Slot | None = field(default=None, repr=False)
    newer: _Slot | None = field(default=None, repr=False)

    def found(self) -> None:
        """Spare it when the hand comes by."""
        self.visited = True


class MemoryResponseStore:
    """Responses of at most `max_bytes`, counted with what Python adds to them.

    Evicts by SIEVE (Zhang et al., NSDI 2024): slots stand in the order they came in, a hand walks
    from the oldest to the newest, spares what was asked for since it last came by, and evicts the
    first that was not. A hit only sets a mark, and one scan of many cold keys evicts those alone.
    """

    def __init__(self, max_bytes: int, metrics: Metrics) -> None:
        self.max_bytes = max_bytes
        self._size_bytes = 0
        self._groups: dict[str, dict[str, _Slot]] = {}
        self._oldest: _Slot | None = None
        self._newest: _Slot | None = None
        self._hand: _Slot | None = None
        self._evictions = metrics.cache_evictions_total.labels(TIER)
        metrics.cache_bytes.labels(TIER).set_function(lambda: self._size_bytes)

    @property
    def size_bytes(self) -> int:
        """What is kept now."""
        return self._size_bytes

    async def lookup(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """The stored variants of a key, newest first."""
        return self.peek(tag, key)

    def peek(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """As `lookup`: nothing is ever waited for."""
        group = self._groups.get(tag)
        slot = None if group is None else group.get(key)
        if slot is None:
            return ()
        slot.visited = True
        return slot.variants

    def held(self, tag: str, key: str) -> Held | None:
        """The slot of a key that has one."""
        group = self._groups.get(tag)
        return None if group is None else group.get(key)

    async def store(self, tag: str, key: str, response: StoredResponse) -> None:
        """Keep a variant in place of an equal one; one larger than the bound is not kept."""
        slot = self._groups.setdefault(tag, {}).get(key) or self._append(tag, key)
        others = [each for each in slot.variants if each.vary != response.vary]
        self._fill(slot, (response, *others)[:MAX_VARIANTS])
        if slot.size_bytes > self.max_bytes:
            self._remove(slot)
        while self._size_bytes > self.max_bytes:
            self._evict()

    async def purge(self, tag: str) -> int:
        """Forget every response with this tag; how many there were."""
        return self.drop(tag)

    def drop(self, tag: str) -> int:
        """As `purge`, for those who cannot wait."""
        slots = self._groups.get(tag, {}).values()
        count = sum(len(slot.variants) for slot in slots)
        for slot in tuple(slots):
            self._remove(slot)
        return count

    async def expire(self, tag: str, now: float) -> int:
        """Keep every response with this tag, but as stale from `now` on; how many there are."""
        return self.age(tag, now)

    def age(self, tag: str, now: float) -> int:
        """As `expire`, for those who cannot wait."""
        slots = self._groups.get(tag, {}).values()
        for slot in slots:
            slot.variants = tuple(
                replace(each, terms=each.terms.expired(now)) for each in slot.variants
            )
        return sum(len(slot.variants) for slot in slots)

    def clear(self) -> None:
        """Forget everything."""
        for group in self._groups.values():
            for slot in group.values():
                slot.variants = ()
        self._groups.clear()
        self._oldest = self._newest = self._hand = None
        self._size_bytes = 0

    def _append(self, tag: str, key: str) -> _Slot:
        slot = _Slot(tag, key, older=self._newest)
        if self._newest is None:
            self._oldest = slot
        else:
            self._newest.newer = slot
        self._newest = slot
        self._groups[tag][key] = slot
        return slot

    def _fill(self, slot: _Slot, variants: tuple[StoredResponse, ...]) -> None:
        size_bytes = _slot_bytes(slot) + sum(map(response_bytes, variants))
        self._size_bytes += size_bytes - slot.size_bytes
        slot.variants, slot.size_bytes = variants, size_bytes

    def _evict(self) -> None:
        slot = self._hand or self._oldest
        while slot is not None and slot.visited:
            slot.visited = False
            slot = slot.newer or self._oldest
        if slot is not None:
            self._hand = slot
            self._evictions.inc()
            self._remove(slot)

    def _remove(self, slot: _Slot) -> None:
        if self._hand is slot:
            self._hand = slot.newer
        if slot.older is None:
            self._oldest = slot.newer
        else:
            slot.older.newer = slot.newer
        if slot.newer is None:
            self._newest = slot.older
        else:
            slot.newer.older = slot.older
        slot.older = slot.newer = None
        slot.variants = ()  # whoever holds it must see that it is gone
        self._size_bytes -= slot.size_bytes
        group = self._groups[slot.tag]
        del group[slot.key]
        if not group:
            del self._groups[slot.tag]


def response_bytes(response: StoredResponse) -> int:
    """What a response costs in memory: its bytes, its fields, and the objects that hold them."""
    headers = response.headers
    size = sys.getsizeof(response) + sys.getsizeof(response.terms) + sys.getsizeof(response.body)
    size += 2 * sys.getsizeof(response.terms.born_at)
    # The table itself shows in a copy, not in its read-only face.
    size += sys.getsizeof(headers) + sys.getsizeof(headers.copy())
    for name, value in headers.items():
        # A field's name stands there twice: as it is spelled, and as it is looked up.
        size += 2 * sys.getsizeof(name) + sys.getsizeof(value)
    for pair in response.vary:
        size += sys.getsizeof(pair) + sum(map(sys.getsizeof, pair))
    return size


def _slot_bytes(slot: _Slot) -> int:
    strings = sys.getsizeof(slot.tag) + sys.getsizeof(slot.key)
    return sys.getsizeof(slot) + sys.getsizeof({slot.key: None}) + strings + _TABLE_BYTES
