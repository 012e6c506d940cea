"""The response store, as the cache may use it: a store that is away has nothing and keeps none."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.error import StoreUnavailable
from gateway.core.freshness import StoredResponse
from gateway.policy.flight import Outdated
from gateway.store.response import ResponseStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics


class Shelf:
    """A `ResponseStore` whose failures are counted and logged, and end there.

    `peek` and `held` are the store's own: what it knows without waiting, None when it must be
    asked.
    """

    def __init__(self, store: ResponseStore, metrics: Metrics) -> None:
        self._store = store
        self.peek = store.peek
        self.held = store.held
        self._errors = metrics.store_errors_total.labels("responses")
        self._log = get_logger("cache")

    async def lookup(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """The stored variants of a key, newest first."""
        try:
            return await self._store.lookup(tag, key)
        except StoreUnavailable as error:
            self._failed("lookup", error)
            return ()

    async def keep(self, tag: str, key: str, entry: StoredResponse) -> bool:
        """Store a variant; False when it could not be."""
        try:
            await self._store.store(tag, key, entry)
        except StoreUnavailable as error:
            self._failed("store", error)
            return False
        return True

    async def forget(self, tag: str, how: Outdated, now: float) -> int:
        """Remove what has this tag, or make it stale from `now` on; how many there were."""
        try:
            if how is Outdated.GONE:
                return await self._store.purge(tag)
            return await self._store.expire(tag, now)
        except StoreUnavailable as error:
            self._failed("forget", error)
            return 0

    def _failed(self, operation: str, error: StoreUnavailable) -> None:
        self._errors.inc()
        self._log.warning("cache_store_failed", operation=operation, error=error.detail)
