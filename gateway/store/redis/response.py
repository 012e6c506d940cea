"""Cached responses in Redis, which replicas share.

What has one tag is one hash, a group: looking a key up is one command. Every group has an end; one
with too many keys begins anew. Groups lie in partitions, each a hash tag, so that one script counts
what a partition takes and, beyond its bound, drops what was stored the longest ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.core.error import StoreUnavailable
from gateway.core.freshness import StoredResponse
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Part
from gateway.store.redis.script import Script, load_script
from gateway.store.redis.variant import digest, packed, unpacked
from gateway.telemetry.metric import Metrics

MAX_VARIANTS = 8  # of one key: what `Vary` lets a client multiply
MAX_KEYS = 1000  # of one tag: what owners of keys multiply
LAYOUT = "responses2"  # the number rises when what is stored changes its form

PARTITIONS = 16
TIER = "redis"

# How long something stale is kept for an upstream that is slow or away, and anything at the most.
_STALE_SECONDS = 600.0
_MAX_SECONDS = 7 * 86_400.0
_OFF_LOOP_BYTES = 64 * 1024  # beyond it, compressing would hold up the event loop

_STORE = load_script("response_store", "lib_key", "lib_clock", "lib_variant", "lib_response")
_PURGE = load_script("response_purge", "lib_key", "lib_response")
_EXPIRE = load_script("response_expire", "lib_key", "lib_variant")


class RedisResponseStore:
    """A `ResponseStore` in Redis; `told` is what others hear of a purge, on `channel`.

    `max_bytes` bounds what all of it takes there, an equal part of it each partition. A lookup that
    takes longer than `patience_seconds` counts as none: `StoreUnavailable`.
    """

    def __init__(
        self,
        client: RedisClient,
        now: Callable[[], float],
        told: Callable[[str, float | None], bytes],
        *,
        max_bytes: int,
        metrics: Metrics,
        patience_seconds: float | None = None,
    ) -> None:
        self._client = client
        self._now = now
        self._told = told
        self._patience_seconds = patience_seconds
        self._partition_bytes = max_bytes // PARTITIONS
        self._evictions = metrics.cache_evictions_total.labels(TIER)
        self._partitions = [client.key(tag=f"{LAYOUT}:{number}") for number in range(PARTITIONS)]
        self.channel = client.key(LAYOUT, "purged")

    def peek(self, tag: str, key: str) -> None:
        """Nothing is known without asking."""

    def held(self, tag: str, key: str) -> None:  # noqa: ARG002 - as the others have it
        """Redis is always waited for."""
        return

    async def lookup(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """The stored variants of a key, newest first."""
        partition, group = self._place(tag)
        value = await self._client.command(
            "HGET",
            partition + b":" + group,
            digest(key),
            patience_seconds=self._patience_seconds,
        )
        if value is None:
            return ()
        try:
            return unpacked(value)
        except ValueError as error:
            raise StoreUnavailable(
                f"Redis holds something else under a cache key: {error}"
            ) from error

    async def store(self, tag: str, key: str, response: StoredResponse) -> None:
        """Keep a variant in place of an equal one, until nothing could be done with it."""
        if len(response.body) > _OFF_LOOP_BYTES:
            variant = await asyncio.to_thread(packed, response)
        else:
            variant = packed(response)
        if len(variant) > self._partition_bytes:
            return  # all else would have to go for it
        evicted = await self._run(
            _STORE,
            tag,
            digest(key),
            variant,
            MAX_VARIANTS,
            MAX_KEYS,
            self._keep_milliseconds(response),
            self._partition_bytes,
        )
        if evicted:
            self._evictions.inc(evicted)

    async def purge(self, tag: str) -> int:
        """Forget every response with this tag; how many there were."""
        return await self._run(_PURGE, tag, self.channel, self._told(tag, None))

    async def expire(self, tag: str, now: float) -> int:
        """Keep every response with this tag, but as stale from `now` on; how many there are."""
        return await self._run(_EXPIRE, tag, repr(now), self.channel, self._told(tag, now))

    async def _run(self, script: Script, tag: str, *args: Part) -> int:
        partition, group = self._place(tag)
        return int(await self._client.run(script, (partition,), (group, *args)))

    def _place(self, tag: str) -> tuple[bytes, bytes]:
        """The prefix of a tag's partition, and its group there."""
        name = digest(tag)
        return self._partitions[name[0] % PARTITIONS], name.hex().encode()

    def _keep_milliseconds(self, response: StoredResponse) -> int:
        terms = response.terms
        beyond = max(_STALE_SECONDS, terms.stale_while_seconds, terms.stale_error_seconds)
        seconds = terms.fresh_until - self._now() + beyond
        return int(1000 * max(1.0, min(seconds, _MAX_SECONDS)))
