"""The management APIs over a real embedded store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.store.sqlite import (
    Database,
    SqliteAuditLog,
    SqliteJobStore,
    SqliteOutbox,
    SqliteWebhookStore,
)
from tests.support.store import Stores


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "gateway.db")
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def stores(database: Database) -> Stores:
    return Stores(
        SqliteJobStore(database),
        SqliteOutbox(database),
        SqliteWebhookStore(database),
        SqliteAuditLog(database),
    )
