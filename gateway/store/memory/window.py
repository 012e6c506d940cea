"""Rate windows in this process's memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from gateway.core.window import Hit, Window, WindowState, decide

MAX_KEYS = 65_536


class MemoryWindowStore:
    """Windows of at most `max_keys` keys, about 1 KiB each.

    Beyond that the key that was quiet longest is forgotten and begins anew: a flood from more
    addresses than this costs precision, never memory. A limit's state belongs to its name, its key
    and its window; a changed `limit` keeps the counts, a changed window starts from none.
    """

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._windows: OrderedDict[tuple[str, str, float], Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    async def hit(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """Decide all limits of a request; atomic, for nothing here waits."""
        states = decide([self._window(hit) for hit in hits], hits, now)
        self._evict(now)
        return states

    def _window(self, hit: Hit) -> Window:
        key = (hit.policy, hit.key, hit.window_seconds)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window(hit.window_seconds)
        else:
            self._windows.move_to_end(key)
        return window

    def _evict(self, now: float) -> None:
        while len(self._windows) > self._max_keys:
            self._windows.popitem(last=False)
        for _ in range(2):  # two out for one in: what is spent goes sooner than it comes
            key = next(iter(self._windows), None)
            if key is None or not self._windows[key].is_spent(now):
                return
            del self._windows[key]
