"""Every contract test runs once over each backend: a further one is a line in `BACKENDS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from gateway.store.base import AuditLog, JobStore, Outbox, WebhookStore
from gateway.store.sqlite import (
    Database,
    SqliteAuditLog,
    SqliteJobStore,
    SqliteOutbox,
    SqliteWebhookStore,
)
from tests.support.store import Stores


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


Backend = Callable[[Path], AbstractAsyncContextManager[Stores]]
BACKENDS: dict[str, Backend] = {"sqlite": sqlite_backend}


@pytest.fixture(params=list(BACKENDS))
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    async with BACKENDS[request.param](tmp_path) as opened:
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
