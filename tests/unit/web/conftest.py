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
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    database = Database(tmp_path / "gateway.db")
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
