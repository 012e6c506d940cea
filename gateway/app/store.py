"""Which store keeps what; nothing else names a backend."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from gateway.app.replica import Replica
from gateway.core.error import StoreUnavailable
from gateway.settings.model import Redis, Settings
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
from gateway.store.redis.audit import RedisAuditLog
from gateway.store.redis.client import RedisClient
from gateway.store.redis.idempotency import RedisIdempotencyStore
from gateway.store.redis.job import RedisJobStore
from gateway.store.redis.key import RedisKeyStore
from gateway.store.redis.outbox import RedisOutbox
from gateway.store.redis.place import RedisPlaceStore
from gateway.store.redis.response import RedisResponseStore
from gateway.store.redis.subscription import Subscription
from gateway.store.redis.webhook import RedisWebhookStore
from gateway.store.redis.window import RedisWindowStore
from gateway.store.response import ResponseStore
from gateway.store.response_tier import TieredResponseStore, purge_message
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


class Stores:
    """Every store of one process; `local_windows` take over while `windows` are away.

    `redis` is the client of the stores that many replicas share; None without the section.
    `replica` is this process among them, where jobs and messages too are in Redis. `places` are
    what replicas share whose upstream is one. `uses_file`: something at least is in SQLite.
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
        self.redis = RedisClient(settings.redis) if settings.redis is not None else None
        self.replica: Replica | None = None
        self.places: PlaceStore | None = None
        self.now: Callable[[], float] = time.time
        file = settings.store.sqlite
        self._database = Database(file.path, patience_seconds=file.timeout)
        if settings.store.kind == "redis" and self.redis is not None:
            self._share(settings, self.redis)
        else:
            self.jobs = SqliteJobStore(self._database)
            self.outbox = SqliteOutbox(self._database)
            self.webhooks = SqliteWebhookStore(self._database)
            self.audit = SqliteAuditLog(self._database)
        self.uses_file = settings.store.kind == "sqlite"
        if keys_are_shared(settings) and self.redis is not None:
            self.keys = RedisKeyStore(self.redis)
            self.idempotency = RedisIdempotencyStore(self.redis)
        else:
            self.uses_file = True
            self.keys = SqliteKeyStore(self._database)
            self.idempotency = SqliteIdempotencyStore(self._database)
        self._workers = settings.workers
        alone = settings.workers == 1
        local = MemoryWindowStore() if alone else WindowShareStore(settings.workers)
        self.windows = self.local_windows = local
        if self.redis is not None and settings.redis is not None:
            patience = settings.redis.limit_timeout
            self.windows = RedisWindowStore(self.redis, patience_seconds=patience)
        self.memory = MemoryResponseStore(self._memory_of(policies), metrics)
        self.responses = self.memory
        self.tiers: TieredResponseStore | None = None
        self._purges: Subscription | None = None
        if self.redis is not None and settings.redis is not None:
            self._share_responses(self.redis, settings.redis, metrics)

    def _share_responses(self, client: RedisClient, settings: Redis, metrics: Metrics) -> None:
        """What is cached is looked for in Redis too, and a purge is heard by every replica."""
        replica = secrets.token_hex(8)
        told = partial(purge_message, replica)
        far = RedisResponseStore(
            client,
            time.time,
            told,
            max_bytes=settings.cache_max_bytes,
            metrics=metrics,
            patience_seconds=settings.cache_timeout,
        )
        tiers = TieredResponseStore(self.memory, far, replica, metrics, time.time)
        self.responses = self.tiers = tiers
        self._purges = Subscription(client, far.channel, tiers.hear, tiers.missed)

    def apply(self, policies: PolicySet) -> None:
        """Go by these policies from now on; what is stored stays, within its new bound."""
        self.memory.max_bytes = self._memory_of(policies)

    def _memory_of(self, policies: PolicySet) -> int:
        """How many bytes of answers this process may keep."""
        return portion(policies.cache.max_bytes, self._workers)

    async def hear(self) -> None:
        """Hear of what other replicas purge, until cancelled; without Redis there are none."""
        if self._purges is not None:
            await self._purges.run()

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

    def _share(self, settings: Settings, client: RedisClient) -> None:
        self.replica = Replica(settings, client)
        self.now = self.replica.now
        layout = self.replica.layout
        jobs = RedisJobStore(client, layout)
        self.jobs = jobs
        self.outbox = RedisOutbox(client, layout)
        self.webhooks = RedisWebhookStore(client, layout, jobs)
        self.audit = RedisAuditLog(client, layout)
        if settings.upstream.shared:
            self.places = RedisPlaceStore(client)
        elif settings.workers > 1:
            self.places = RedisPlaceStore(client, settings.upstream.instance)

    async def close(self) -> None:
        """Close them all; what was committed stays."""
        if self.tiers is not None:
            await self.tiers.close()
        await self._database.close()
        if self.replica is not None:
            await self.replica.leave()
        if self.redis is not None:
            await self.redis.close()


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
        client = RedisClient(settings.redis)
        try:
            yield RedisKeyStore(client)
        finally:
            await client.close()
        return
    database = Database(settings.store.sqlite.path)
    await database.open()
    try:
        yield SqliteKeyStore(database)
    finally:
        await database.close()
