"""Every contract test runs once over each backend: a further one is a line in `BACKENDS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.settings.store import Redis
from gateway.store.audit import AuditLog
from gateway.store.job import JobStore
from gateway.store.outbox import Outbox
from gateway.store.redis.audit import RedisAuditLog
from gateway.store.redis.client import RedisClient
from gateway.store.redis.job import RedisJobStore
from gateway.store.redis.layout import Layout
from gateway.store.redis.outbox import RedisOutbox
from gateway.store.redis.webhook import RedisWebhookStore
from gateway.store.sqlite import (
    Database,
    SqliteAuditLog,
    SqliteJobStore,
    SqliteOutbox,
    SqliteWebhookStore,
)
from gateway.store.webhook import WebhookStore
from tests.support.store import Stores
from tests.support.valkey import Valkey, ValkeyCluster


@asynccontextmanager
async def sqlite_backend(directory: Path) -> AsyncIterator[Stores]:
    database = Database(directory / "gateway.db")
    await database.open()
    try:
        yield Stores(
            SqliteJobStore(database),
            SqliteOutbox(database),
            SqliteWebhookStore(database),
            SqliteAuditLog(database),
        )
    finally:
        await database.close()


@asynccontextmanager
async def redis_backend(url: str, *, cluster: bool) -> AsyncIterator[Stores]:
    client = RedisClient(Redis(url=SecretStr(url), cluster=cluster))
    layout = Layout(client)
    await layout.open()
    jobs = RedisJobStore(client, layout)
    try:
        yield Stores(
            jobs,
            RedisOutbox(client, layout),
            RedisWebhookStore(client, layout, jobs),
            RedisAuditLog(client, layout),
        )
    finally:
        await client.close()


def sqlite(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Stores]:
    return sqlite_backend(request.getfixturevalue("tmp_path"))


def redis(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Stores]:
    server: Valkey = request.getfixturevalue("valkey")
    return redis_backend(server.url, cluster=False)


def redis_cluster(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Stores]:
    cluster: ValkeyCluster = request.getfixturevalue("valkey_cluster")
    return redis_backend(cluster.url, cluster=True)


Backend = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Stores]]
BACKENDS: dict[str, Backend] = {"sqlite": sqlite, "redis": redis, "redis_cluster": redis_cluster}


@pytest.fixture(params=list(BACKENDS))
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    async with BACKENDS[request.param](request) as opened:
        yield opened


@pytest.fixture
def jobs(stores: Stores) -> JobStore:
    return stores.jobs


@pytest.fixture
def outbox(stores: Stores) -> Outbox:
    return stores.outbox


@pytest.fixture
def webhooks(stores: Stores) -> WebhookStore:
    return stores.webhooks


@pytest.fixture
def audit(stores: Stores) -> AuditLog:
    return stores.audit
