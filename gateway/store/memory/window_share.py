"""Rate windows in the memory of one of several workers, which do not see each other's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.core.window import Hit, WindowState
from gateway.store.memory.window import MemoryWindowStore


class WindowShareStore(MemoryWindowStore):
    """Each of `workers` grants its share of a limit, so that together they keep it.

    A share is rounded up, and never less than what the request costs.
    """

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._workers = workers

    def admits(self, hits: Sequence[Hit], now: float) -> bool:
        """True when the shares of all quotas would admit the request."""
        return super().admits(self._shares(hits), now)

    def spend(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """As `hit`."""
        return super().spend(self._shares(hits), now)

    def _shares(self, hits: Sequence[Hit]) -> Sequence[Hit]:
        return [
            hit._replace(
                quota=replace(hit.quota, limit=max(hit.cost, -(-hit.quota.limit // self._workers)))
            )
            for hit in hits
        ]
