"""Which store keeps what; nothing else names a backend."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from gateway.app.clock import SteadyClock
from gateway.core.error import StoreUnavailable
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.settings.share import portion
from gateway.store.audit import AuditLog
from gateway.store.idempotency import IdempotencyStore
from gateway.store.job import JobStore
from gateway.store.key import KeyStore
from gateway.store.memory.response import MemoryResponseStore
from gateway.store.memory.window import MemoryWindowStore
from gateway.store.memory.window_share import WindowShareStore
from gateway.store.outbox import Outbox
from gateway.store.place import PlaceStore
from gateway.store.response import ResponseStore
from gateway.store.sqlite.audit import SqliteAuditLog
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.idempotency import SqliteIdempotencyStore
from gateway.store.sqlite.job import SqliteJobStore
from gateway.store.sqlite.key import SqliteKeyStore
from gateway.store.sqlite.outbox import SqliteOutbox
from gateway.store.sqlite.webhook import SqliteWebhookStore
from gateway.store.webhook import WebhookStore
from gateway.store.window import WindowStore
from gateway.telemetry.metric import Metrics

if TYPE_CHECKING:
    from gateway.app.replica import Replica
    from gateway.app.shared import Shared
    from gateway.store.redis.client import RedisClient
    from gateway.store.response_tier import TieredResponseStore


class Stores:
    """Every store of one process; `local_windows` take over while `windows` are away.

    `replica` is this process among them, where jobs and messages too are in Redis. `places` are
    what replicas share whose upstream is one. `uses_file`: something at least is in SQLite. `now`
    goes evenly, whatever this host's clock does; `wall` is the time as others know it. Both are
    Redis's where that has the jobs.
    """

    jobs: JobStore
    outbox: Outbox
    webhooks: WebhookStore
    audit: AuditLog
    keys: KeyStore
    idempotency: IdempotencyStore
    windows: WindowStore
    local_windows: WindowStore
    responses: ResponseStore

    def __init__(self, settings: Settings, policies: PolicySet, metrics: Metrics) -> None:
        self._workers = settings.workers
        self.clock = SteadyClock()
        self.now: Callable[[], float] = self.clock.now
        self.wall: Callable[[], float] = time.time
        self.memory = MemoryResponseStore(self._memory_of(policies), metrics)
        self.responses = self.memory
        alone = settings.workers == 1
        self.local_windows = MemoryWindowStore() if alone else WindowShareStore(settings.workers)
        self.windows = self.local_windows
        self.replica: Replica | None = None
        self.places: PlaceStore | None = None
        self._shared = _shared(settings, self.memory, metrics)
        self._file(settings)
        if self._shared is not None:
            self.windows, self.responses = self._shared.windows, self._shared.responses
            self._share(self._shared, settings)

    def _file(self, settings: Settings) -> None:
        """What is in SQLite, unless it is shared."""
        file = settings.store.sqlite
        self._database = database = Database(file.path, patience_seconds=file.timeout)
        self.uses_file = settings.store.kind == "sqlite" or not keys_are_shared(settings)
        self.jobs = SqliteJobStore(database)
        self.outbox = SqliteOutbox(database)
        self.webhooks = SqliteWebhookStore(database)
        self.audit = SqliteAuditLog(database)
        self.keys = SqliteKeyStore(database)
        self.idempotency = SqliteIdempotencyStore(database)

    def _share(self, shared: Shared, settings: Settings) -> None:
        """What the settings want in Redis."""
        if keys_are_shared(settings):
            self.keys, self.idempotency = shared.keys, shared.idempotency
        if (records := shared.records) is not None:
            self.replica, self.places = records.replica, records.places
            self.now = self.wall = records.replica.now
            self.jobs, self.outbox = records.jobs, records.outbox
            self.webhooks, self.audit = records.webhooks, records.audit

    @property
    def redis(self) -> RedisClient | None:
        """The client of the stores that replicas share; None without the section."""
        return None if self._shared is None else self._shared.client

    @property
    def tiers(self) -> TieredResponseStore | None:
        """The cache's two tiers, where Redis is the second."""
        return None if self._shared is None else self._shared.responses

    def apply(self, policies: PolicySet) -> None:
        """Go by these policies from now on; what is stored stays, within its new bound."""
        self.memory.max_bytes = self._memory_of(policies)

    def _memory_of(self, policies: PolicySet) -> int:
        """How many bytes of answers this process may keep."""
        return portion(policies.cache.max_bytes, self._workers)

    async def hear(self) -> None:
        """Hear of what other replicas purge, until cancelled; without Redis there are none."""
        if self._shared is not None:
            await self._shared.purges.run()

    async def probe_file(self) -> int:
        """Read and commit in the SQLite file, changing nothing: the bytes left on its volume.

        Raises StoreUnavailable.
        """
        return await self._database.probe()

    async def open(self) -> None:
        """Open them all. Raises SettingsError for one that cannot be used."""
        if self.uses_file:
            await self._database.open()
        if self.redis is not None:
            with suppress(StoreUnavailable):  # the limits say what then happens, and health tells
                await self.redis.ping()
        if self.replica is not None:
            await self.replica.open()
        else:
            # This process alone has the file: what one before it was at when it died is free again.
            await self.jobs.void_leases()
        if isinstance(self.idempotency, SqliteIdempotencyStore):
            await self.idempotency.void()

    async def close(self) -> None:
        """Close them all; what was committed stays."""
        if self.tiers is not None:
            await self.tiers.close()
        await self._database.close()
        if self.replica is not None:
            await self.replica.leave()
        if self.redis is not None:
            await self.redis.close()


def _shared(settings: Settings, memory: MemoryResponseStore, metrics: Metrics) -> Shared | None:
    """What is in Redis, if the settings have one."""
    if settings.redis is None:
        return None
    from gateway.app.shared import Shared  # noqa: PLC0415 - most gateways start without it

    return Shared(settings, settings.redis, memory, metrics)


def keys_are_shared(settings: Settings) -> bool:
    """True when API keys and idempotency keys are in Redis."""
    return (settings.store.keys or settings.store.kind) == "redis"


@asynccontextmanager
async def open_stores(settings: Settings, policies: PolicySet) -> AsyncIterator[Stores]:
    """Every store by itself, while no gateway need run.

    Raises SettingsError for one that cannot be used, as a file that a running gateway has.
    """
    stores = Stores(settings, policies, Metrics())
    await stores.open()
    try:
        yield stores
    finally:
        await stores.close()


@asynccontextmanager
async def open_key_store(settings: Settings) -> AsyncIterator[KeyStore]:
    """The store of API keys alone. Raises SettingsError for a file that cannot be used."""
    if keys_are_shared(settings) and settings.redis is not None:
        from gateway.store.redis.client import RedisClient  # noqa: PLC0415 - as in `_shared`
        from gateway.store.redis.key import RedisKeyStore  # noqa: PLC0415

        client = RedisClient(settings.redis)
        try:
            yield RedisKeyStore(client)
        finally:
            await client.close()
        return
    file = settings.store.sqlite
    database = Database(file.path, patience_seconds=file.timeout)
    await database.open()
    try:
        yield SqliteKeyStore(database)
    finally:
        await database.close()
