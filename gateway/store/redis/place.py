"""Places for jobs in Redis: a sorted set a group, all of them on one node."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.admission import Bound
from gateway.store.place import Place
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Part
from gateway.store.redis.script import load_script

_TAKE = load_script("place_take", "lib_key", "lib_clock", "lib_place")
_KEEP = load_script("place_keep", "lib_key", "lib_clock", "lib_place")
_STEP = 500  # places that one script keeps


class RedisPlaceStore:
    """`gateway.store.place.PlaceStore` over a `RedisClient`; leases are on the server's clock.

    `upstream` are the places of one upstream alone, where each replica has its own.
    """

    def __init__(self, client: RedisClient, upstream: str | None = None) -> None:
        self._client = client
        parts = () if upstream is None else ("of", upstream)
        self._prefix = client.key(*parts, tag="places")

    async def take(
        self, name: str, bounds: Sequence[Bound], lease_seconds: float, *, anyway: bool
    ) -> int | None:
        """Take a place in every group at once; else the index of the first that is full."""
        arguments: list[Part] = [name, _milliseconds(lease_seconds), int(anyway)]
        for bound in bounds:
            arguments += (bound.group, bound.limit)
        full: int = await self._client.run(_TAKE, (self._prefix,), arguments)
        return full - 1 if full else None

    async def pass_on(self, name: str, place: Place, lease_seconds: float) -> None:
        """Put a place instead of the one of that name."""
        await self._keep(name, [place], lease_seconds)

    async def keep(self, places: Sequence[Place], lease_seconds: float) -> None:
        """Hold these for a further lease."""
        for start in range(0, len(places), _STEP):
            await self._keep("", places[start : start + _STEP], lease_seconds)

    async def free(self, place: Place) -> None:
        """Give it back."""
        keys = (self._prefix + b":" + group.encode() for group in place.groups)
        await self._client.commands([("ZREM", key, place.name) for key in keys])

    async def _keep(self, before: str, places: Sequence[Place], lease_seconds: float) -> None:
        arguments: list[Part] = [before, _milliseconds(lease_seconds)]
        for place in places:
            arguments += (place.name, len(place.groups), *place.groups)
        await self._client.run(_KEEP, (self._prefix,), arguments)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
