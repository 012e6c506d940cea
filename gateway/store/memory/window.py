"""Rate windows in this process's memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Self

from gateway.core.window import Hit, Window, WindowState, decide, microseconds

MAX_KEYS = 65_536


class MemoryWindowStore:
    """Windows of at most `max_keys` keys, about 700 bytes each.

    Beyond that the key that was quiet longest is forgotten and begins anew: a flood from more
    addresses than this costs precision, never memory. A window belongs to its quota's family and
    its key; a changed `limit` keeps the counts, a changed length starts from none.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._windows: OrderedDict[tuple[str, str], Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def at_hand(self) -> Self:
        """Itself."""
        return self

    async def hit(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """Decide all quotas of a request; atomic, for nothing here waits."""
        return self.spend(hits, now)

    def admits(self, hits: Sequence[Hit], now: float) -> bool:
        """True when all quotas of a request, those in shadow too, would admit it."""
        at = microseconds(now)
        for quota, key, cost, _ in hits:
            window = self._windows.get((quota.family, key))
            if cost > (quota.limit if window is None else quota.limit - window.used(at)):
                return False
        return True

    def spend(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """As `hit`."""
        at = microseconds(now)
        states = decide([self._window(hit) for hit in hits], hits, at)
        self._evict(at)
        return states

    def _window(self, hit: Hit) -> Window:
        key = (hit.quota.family, hit.key)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window(hit.quota.bucket)
        else:
            self._windows.move_to_end(key)
        return window

    def _evict(self, now: int) -> None:
        windows = self._windows
        while len(windows) > self._max_keys:
            windows.popitem(last=False)
        for _ in range(2):  # two out for one in: what is spent goes sooner than it comes
            key = next(iter(windows), None)
            if key is None or not windows[key].is_spent(now):
                return
            del windows[key]
