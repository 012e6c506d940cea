"""What the gateway asks of a store of rate windows; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.core.window import Hit, WindowState


class WindowsAtHand(Protocol):
    """Windows for which nothing is ever waited."""

    def admits(self, hits: Sequence[Hit], now: float) -> bool:
        """True when all limits of a request would admit it; counts nothing."""
        ...

    def spend(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """As `WindowStore.hit`."""
        ...


class WindowStore(Protocol):
    """Sliding windows of rate limits."""

    @property
    def at_hand(self) -> WindowsAtHand | None:
        """The same windows where they are in this process; None where they must be waited for."""
        ...

    async def hit(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """Decide all limits of a request in one atomic step: all admit and count, or none does."""
        ...
