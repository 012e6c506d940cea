"""Cached responses in Redis, which replicas share.

What has one tag is one hash, a group: looking a key up is one command, and a purge removes one key,
on a Cluster too. Every group has an end; one with too many keys begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.core.error import StoreUnavailable
from gateway.core.freshness import StoredResponse
from gateway.store.redis.client import RedisClient
from gateway.store.redis.script import load_script
from gateway.store.redis.variant import digest, packed, unpacked

MAX_VARIANTS = 8  # of one key: what `Vary` lets a client multiply
MAX_KEYS = 1000  # of one tag: what owners of keys multiply
LAYOUT = "responses1"  # the number rises when what is stored changes its form

# How long something stale is kept for an upstream that is slow or away, and anything at the most.
_STALE_SECONDS = 600.0
_MAX_SECONDS = 7 * 86_400.0
_OFF_LOOP_BYTES = 64 * 1024  # beyond it, compressing would hold up the event loop

_STORE = load_script("response_store", "lib_variant")
_PURGE = load_script("response_purge")
_EXPIRE = load_script("response_expire", "lib_variant")


class RedisResponseStore:
    """A `ResponseStore` in Redis; `told` is what others hear of a purge, on `channel`.

    A lookup that takes longer than `patience_seconds` counts as none: `StoreUnavailable`.
    """

    def __init__(
        self,
        client: RedisClient,
        now: Callable[[], float],
        told: Callable[[str, float | None], bytes],
        patience_seconds: float | None = None,
    ) -> None:
        self._client = client
        self._now = now
        self._told = told
        self._patience_seconds = patience_seconds
        self.channel = client.key(LAYOUT, "purged")

    def peek(self, tag: str, key: str) -> None:
        """Nothing is known without asking."""

    def held(self, tag: str, key: str) -> None:  # noqa: ARG002 - as the others have it
        """Redis is always waited for."""
        return

    async def lookup(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """The stored variants of a key, newest first."""
        value = await self._client.command(
            "HGET", self._group(tag), digest(key), patience_seconds=self._patience_seconds
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
        keep = self._keep_milliseconds(response)
        args = (digest(key), variant, MAX_VARIANTS, MAX_KEYS, keep)
        await self._client.run(_STORE, [self._group(tag)], args)

    async def purge(self, tag: str) -> int:
        """Forget every response with this tag; how many there were."""
        args = (self.channel, self._told(tag, None))
        return int(await self._client.run(_PURGE, [self._group(tag)], args))

    async def expire(self, tag: str, now: float) -> int:
        """Keep every response with this tag, but as stale from `now` on; how many there are."""
        args = (repr(now), self.channel, self._told(tag, now))
        return int(await self._client.run(_EXPIRE, [self._group(tag)], args))

    def _group(self, tag: str) -> bytes:
        return self._client.key(LAYOUT, digest(tag).hex())

    def _keep_milliseconds(self, response: StoredResponse) -> int:
        terms = response.terms
        beyond = max(_STALE_SECONDS, terms.stale_while_seconds, terms.stale_error_seconds)
        seconds = terms.fresh_until - self._now() + beyond
        return int(1000 * max(1.0, min(seconds, _MAX_SECONDS)))
