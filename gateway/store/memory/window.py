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
        at = microseconds(now)
        states = decide(self.windows(hits), hits, at)
        self._evict(at)
        return states

    def counted(self, hits: Sequence[Hit]) -> Sequence[Hit]:
        """As they are."""
        return hits

    def windows(self, hits: Sequence[Hit]) -> list[Window]:
        """Those of a request's hits; each key that is new gets one."""
        windows = self._windows
        found = []
        for quota, key, _, _ in hits:
            name = (quota.family, key)
            window = windows.get(name)
            if window is None:
                window = windows[name] = Window(quota.bucket)
            else:
                windows.move_to_end(name)
            found.append(window)
        return found

    def _evict(self, now: int) -> None:
        windows = self._windows
        while len(windows) > self._max_keys:
            windows.popitem(last=False)
        for _ in range(2):  # two out for one in: what is spent goes sooner than it comes
            key = next(iter(windows), None)
            if key is None or not windows[key].is_spent(now):
                return
            del windows[key]
