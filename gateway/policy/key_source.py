"""The keys in memory: what a request's key is looked up in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.credential import Key
from gateway.core.error import StoreUnavailable
from gateway.store.key import KeyStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics


class KeySource:
    """The active keys of the store by hash, and when each key, of any source, was last used.

    A lookup costs the same however many keys there are, and waits for nothing: the store is asked
    only for what changed. While it is away the keys known last hold. `listed` are the keys of the
    policy file in force. It outlives the policy files; `by_hash` and `by_id` are changed
    in place.
    """

    def __init__(self, store: KeyStore, metrics: Metrics, now: Callable[[], float]) -> None:
        self.by_hash: dict[str, Key] = {}
        self.by_id: dict[str, Key] = {}  # the same
        self.listed: dict[str, Key] = {}
        self.used: dict[str, float] = {}  # epoch seconds by key id
        self._store = store
        self._now = now
        self._generation = 0
        self._is_away = False
        self._refreshing = asyncio.Lock()
        self._errors = metrics.store_errors_total.labels("keys")
        self._log = get_logger("auth")

    async def refresh(self) -> None:
        """Take up what changed in the store. Raises StoreUnavailable."""
        async with self._refreshing:  # an answer must not be overtaken by one asked for earlier
            changes = await self._store.changes(self._generation)
            if changes.generation < self._generation:  # set back: nothing known before holds
                changes = await self._store.changes(0)
                self.by_hash.clear()
                self.by_id.clear()
            now = self._now()
            for key in changes.keys:
                self._forget(key)
            for key in changes.keys:
                if key.is_active(now):
                    self.by_hash[key.sha256] = self.by_id[key.key_id] = key
            self._generation = changes.generation

    async def follow(self) -> None:
        """Keep up with other processes until cancelled; returns when there can be none."""
        async for _ in self._store.watch():
            await self.refresh_quietly()

    async def refresh_quietly(self) -> None:
        """As `refresh`, but a store that is away is logged, once, and counted."""
        try:
            await self.refresh()
        except StoreUnavailable as error:
            self._errors.inc()
            if not self._is_away:
                self._log.warning("keys_away", error=error.detail)
            self._is_away = True
            return
        if self._is_away:
            self._log.info("keys_back")
        self._is_away = False

    async def flush(self) -> None:
        """Write down which keys were used since the last time, and drop those that have expired.

        Raises StoreUnavailable; what could not be written is written the next time.
        """
        now = self._now()
        for key in [each for each in self.by_hash.values() if not each.is_active(now)]:
            self._forget(key)
        if not (used := dict(self.used)):
            return
        await self._store.note_used(used)
        for key_id, at in used.items():
            if self.used.get(key_id) == at:  # else it was used again meanwhile
                del self.used[key_id]

    def _forget(self, key: Key) -> None:
        self.by_hash.pop(key.sha256, None)
        self.by_id.pop(key.key_id, None)
