"""Rate windows in Redis, shared by every replica: one script call decides a request's quotas.

A window's arithmetic is that of `gateway.core.window`, in `window.lua`. The time is the server's:
replicas whose clocks differ still count in one window.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from gateway.core.window import MICROSECONDS, SLOTS, Hit, Quota, WindowState, microseconds
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Part
from gateway.store.redis.script import load_script

_KEPT_MILLISECONDS = 3_600_000
_DECIDE = load_script("window")


class RedisWindowStore:
    """`gateway.store.window.WindowStore` over a `RedisClient`.

    An answer that takes longer than `patience_seconds` counts as none: `StoreUnavailable`.
    `own_clock` False has the time come with each call, as the tests need it.

    On a Cluster the quotas of a request lie on one node if their hits share a tag. Where they do
    not, the nodes are first asked whether they would all admit, and only then count: a limit is
    still never exceeded, but in a race one may count a request that another refuses.
    """

    def __init__(
        self, client: RedisClient, *, patience_seconds: float, own_clock: bool = True
    ) -> None:
        self._client = client
        self._patience_seconds = patience_seconds
        self._own_clock = own_clock

    @property
    def at_hand(self) -> None:
        """Redis is always waited for."""
        return None

    async def hit(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """Decide all quotas of a request. Raises StoreUnavailable."""
        if not self._client.is_cluster or len({hit.tag or hit.key for hit in hits}) < 2:
            return await self._decide(hits, now, counts=True) if hits else []
        looked = await self._decide_apart(hits, now, counts=False)
        if any(
            not state.admitted and not hit.quota.shadow
            for hit, state in zip(hits, looked, strict=True)
        ):
            return looked
        return await self._decide_apart(hits, now, counts=True)

    async def _decide(
        self, hits: Sequence[Hit], now: float, *, counts: bool
    ) -> Sequence[WindowState]:
        keys: list[bytes] = []
        args: list[Part] = [b"" if self._own_clock else microseconds(now), int(counts)]
        for quota, key, cost, tag in hits:
            keys.append(self._client.key("window", quota.family, key, tag=tag or key))
            kept = self._kept_milliseconds(quota)
            args += (quota.limit, quota.bucket, cost, int(quota.shadow), kept)
        reply = await self._client.run(_DECIDE, keys, args, patience_seconds=self._patience_seconds)
        figures = iter(reply)
        return [
            WindowState(admitted == 1, remaining, reset / MICROSECONDS, retry / MICROSECONDS)
            for admitted, remaining, reset, retry in zip(
                figures, figures, figures, figures, strict=True
            )
        ]

    def _kept_milliseconds(self, quota: Quota) -> int:
        """Until nothing of the window counts; by another's clock the server cannot tell when."""
        return SLOTS * quota.bucket // 1000 + 2 if self._own_clock else _KEPT_MILLISECONDS

    async def _decide_apart(
        self, hits: Sequence[Hit], now: float, *, counts: bool
    ) -> Sequence[WindowState]:
        """One call a tag; the states in the order of the hits."""
        places = sorted(range(len(hits)), key=lambda place: hits[place].tag or hits[place].key)
        states: dict[int, WindowState] = {}
        for _, group in groupby(places, key=lambda place: hits[place].tag or hits[place].key):
            here = list(group)
            decided = await self._decide([hits[place] for place in here], now, counts=counts)
            states |= zip(here, decided, strict=True)
        return [states[place] for place in range(len(hits))]
