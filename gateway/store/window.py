"""What the gateway asks of a store of rate windows; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.core.window import Hit, Window, WindowState


class WindowsAtHand(Protocol):
    """Windows for which nothing is ever waited."""

    def counted(self, hits: Sequence[Hit]) -> Sequence[Hit]:
        """The hits as these windows count them."""
        ...

    def windows(self, hits: Sequence[Hit]) -> Sequence[Window]:
        """The windows of a request's hits, for the functions of `core.window`."""
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
