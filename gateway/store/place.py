"""What the gateway asks of a store of places for jobs; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.admission import Bound


@dataclass(frozen=True, slots=True)
class Place:
    """What a creation or a job holds, by a name of its own, in every group that it counts in."""

    name: str
    groups: tuple[str, ...]


class PlaceStore(Protocol):
    """Places that all replicas in front of one upstream share, each until its lease ends."""

    async def take(
        self, name: str, bounds: Sequence[Bound], lease_seconds: float, *, anyway: bool
    ) -> int | None:
        """Take a place in the group of every bound, in one step; None when that was done.

        Else the index of the first bound that is reached; then nothing is taken, unless `anyway`.
        """
        ...

    async def pass_on(self, name: str, place: Place, lease_seconds: float) -> None:
        """Put a place instead of the one of that name, in one step; it is in the same groups."""
        ...

    async def keep(self, places: Sequence[Place], lease_seconds: float) -> None:
        """These are held, for a further lease, whatever the bounds."""
        ...

    async def free(self, place: Place) -> None:
        """Give it back; nothing if it is not there."""
        ...
