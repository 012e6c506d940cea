"""Whose turn it is: keys in the order in which they are due, spread evenly over the time given.

A turn is taken within a window, not at a moment: of the window's slots the emptiest gets it. So
what began in one moment spreads out by itself, and stays spread. Whoever is due longest is next;
when there is more to do than can be done, everyone's turn comes late, and nobody's never.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter

SLOT_SECONDS = 0.1
_CANDIDATES = 16  # slots of a window that are looked at
_MIDDLE = 0.5


class Turns:
    """Each key has one turn at most; times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._slots: Counter[int] = Counter()
        # An entry whose time is not that of `_due` is void: replaced or dropped since.
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: object) -> bool:
        return key in self._due

    def at(self, key: str) -> float | None:
        """When a key's turn is; None without one."""
        return self._due.get(key)

    def put(self, key: str, at: float) -> None:
        """Give a key its turn at this time, instead of the one it has."""
        self.drop(key)
        self._due[key] = at
        self._slots[_slot(at)] += 1
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._due) + 64:  # mostly void
            self._heap = [(at, key) for key, at in self._due.items()]
            heapq.heapify(self._heap)

    def put_within(self, key: str, earliest: float, latest: float) -> float:
        """Give a key its turn where the window is emptiest; when that is."""
        self.drop(key)
        first, last = _slot(earliest), _slot(latest)
        step = max(1, math.ceil((last - first + 1) / _CANDIDATES))
        # The latest of the emptiest: nobody is asked more often than there is room for.
        slot = min(range(last, first - 1, -step), key=self._slots.__getitem__)
        at = min(latest, max(earliest, (slot + _MIDDLE) * SLOT_SECONDS))
        self.put(key, at)
        return at

    def drop(self, key: str) -> None:
        """Take a key's turn away, if it has one."""
        at = self._due.pop(key, None)
        if at is not None:
            slot = _slot(at)
            self._slots[slot] -= 1
            if not self._slots[slot]:
                del self._slots[slot]

    def next_at(self) -> float | None:
        """When the next turn is; None when there is none."""
        heap = self._heap
        while heap and self._due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take(self, now: float) -> str | None:
        """The key that is due longest, its turn taken; None while nobody is."""
        at = self.next_at()
        if at is None or at > now:
            return None
        _, key = heapq.heappop(self._heap)
        self.drop(key)
        return key


def _slot(at: float) -> int:
    return math.floor(at / SLOT_SECONDS)
