"""Which replicas live, and which upstream instances have one beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.store.redis.client import RedisClient
from gateway.store.redis.script import load_script

_BEAT = load_script("replica_beat", "lib_key")
FORGET_SECONDS = 7 * 86400.0  # an instance's name is then gone, its jobs ended long before


class RedisReplicas:
    """`gateway.store.replica.Replicas` in Redis."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._prefix = client.key(tag="replicas")

    async def beat(self, replica: str, instance: str, now: float, until: float) -> int:
        """Live until then, and the instance with it; how many replicas do, this one included."""
        arguments = (replica, instance, now, until, now - FORGET_SECONDS)
        count: int = await self._client.run(_BEAT, (self._prefix,), arguments)
        return count

    async def leave(self, replica: str) -> None:
        """Live no more: the others share its work at once."""
        await self._client.command("ZREM", self._prefix + b":alive", replica)

    async def expect(self, instances: Collection[str], until: float) -> None:
        """Take those of which nothing is known to live until then."""
        if instances:
            pairs = [part for name in instances for part in (until, name)]
            await self._client.command("ZADD", self._prefix + b":instances", "NX", *pairs)

    async def gone(self, before: float) -> Sequence[str]:
        """The instances whose last sign of life ended before."""
        key = self._prefix + b":instances"
        found = await self._client.command("ZRANGEBYSCORE", key, "-inf", before)
        return [name.decode() for name in found]
