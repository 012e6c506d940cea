"""What replicas share in Redis.

Imported only where the settings have one: its library and these stores are a good tenth of a start.
"""

from __future__ import annotations

import secrets
import time
from functools import partial

from gateway.app.replica import Replica
from gateway.settings.model import Settings
from gateway.settings.store import Redis
from gateway.store.memory.response import MemoryResponseStore
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
from gateway.store.response_tier import TieredResponseStore, purge_message
from gateway.telemetry.metric import Metrics


class Shared:
    """Every store of one Redis; making them dials nothing.

    `responses` has `memory` as its first tier; `purges` tells it what other replicas purge.
    `records` are None where jobs and messages are in SQLite.
    """

    def __init__(
        self, settings: Settings, redis: Redis, memory: MemoryResponseStore, metrics: Metrics
    ) -> None:
        self.client = client = RedisClient(redis)
        self.keys = RedisKeyStore(client)
        self.idempotency = RedisIdempotencyStore(client)
        self.windows = RedisWindowStore(client, patience_seconds=redis.limit_timeout)
        replica = secrets.token_hex(8)
        told = partial(purge_message, replica)
        far = RedisResponseStore(
            client,
            time.time,
            told,
            max_bytes=redis.cache_max_bytes,
            metrics=metrics,
            patience_seconds=redis.cache_timeout,
        )
        self.responses = TieredResponseStore(memory, far, replica, metrics, time.time)
        self.purges = Subscription(client, far.channel, self.responses.hear, self.responses.missed)
        self.records: Records | None = None
        if settings.store.kind == "redis":
            self.records = Records(settings, client)


class Records:
    """Jobs and what comes of them, of `replica` among others.

    `places` are what replicas share whose upstream is one; None where each has its own.
    """

    def __init__(self, settings: Settings, client: RedisClient) -> None:
        self.replica = Replica(settings, client)
        layout = self.replica.layout
        self.jobs = RedisJobStore(client, layout)
        self.outbox = RedisOutbox(client, layout)
        self.webhooks = RedisWebhookStore(client, layout, self.jobs)
        self.audit = RedisAuditLog(client, layout)
        self.places: PlaceStore | None = None
        if settings.upstream.shared:
            self.places = RedisPlaceStore(client)
        elif settings.workers > 1:
            self.places = RedisPlaceStore(client, settings.upstream.instance)
