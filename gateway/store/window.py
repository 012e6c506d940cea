"""What the gateway asks of a store of rate windows; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.core.window import Hit, WindowState


class WindowStore(Protocol):
    """Sliding windows of rate limits."""

    async def hit(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """Decide all limits of a request in one atomic step: all admit and count, or none does."""
        ...
