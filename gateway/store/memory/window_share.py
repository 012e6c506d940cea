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

    async def hit(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """Decide all quotas of a request by their shares."""
        return await super().hit(self.counted(hits), now)

    def counted(self, hits: Sequence[Hit]) -> Sequence[Hit]:
        """Against the shares of their quotas."""
        return [
            hit._replace(
                quota=replace(hit.quota, limit=max(hit.cost, -(-hit.quota.limit // self._workers)))
            )
            for hit in hits
        ]
