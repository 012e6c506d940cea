"""What replicas that share a store tell each other by it; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol


class Replicas(Protocol):
    """Signs of life, where many replicas share a store."""

    async def beat(self, replica: str, instance: str, now: float, until: float) -> int:
        """Live until then, and the upstream instance with it; how many replicas live."""
        ...

    async def leave(self, replica: str) -> None:
        """Live no more."""
        ...

    async def expect(self, instances: Collection[str], until: float) -> None:
        """Take those of which nothing is known to live until then."""
        ...

    async def gone(self, before: float) -> Sequence[str]:
        """The upstream instances whose last sign of life ended before."""
        ...
