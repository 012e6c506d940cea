"""Webhooks read from memory: what was written is what is read, whatever happens in between."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.store.sqlite import Database, SqliteWebhookStore
from tests.support.store import NOW, webhook


class CountingDatabase(Database):
    """Counts reads, and holds their results back while `gate` is closed."""

    reads = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, operation: Callable[[sqlite3.Connection], Any]) -> Any:
        self.reads += 1
        found = await super().read(operation)
        await self.gate.wait()
        return found


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[CountingDatabase]:
    opened = CountingDatabase(tmp_path / "gateway.db")
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


async def test_webhook_read_again_comes_from_memory(database: CountingDatabase) -> None:
    store = SqliteWebhookStore(database)
    await store.add(webhook())
    found = [await store.get("wh_1") for _ in range(5)]
    assert found == [webhook()] * 5
    assert database.reads == 1


async def test_every_write_is_read_at_once(database: CountingDatabase) -> None:
    store = SqliteWebhookStore(database)
    await store.add(webhook())
    seen = []
    for write in (
        lambda: store.replace(replace(webhook(), description="new"), 1),
        lambda: store.note_outcome("wh_1", False, NOW),
        lambda: store.note_outcome("wh_1", True, NOW),
        lambda: store.disable("wh_1", "gone", NOW),
        lambda: store.delete("wh_1"),
    ):
        await store.get("wh_1")
        await write()
        seen.append(await store.get("wh_1"))
    said = [each and (each.description, each.consecutive_failures, each.status) for each in seen]
    assert said == [
        ("new", 0, "active"),
        ("new", 1, "active"),
        ("new", 0, "active"),
        ("new", 0, "disabled"),
        None,
    ]


async def test_pruned_callback_is_not_read_any_more(database: CountingDatabase) -> None:
    store = SqliteWebhookStore(database)
    await store.add(webhook(job_id="job-of-nobody"))
    await store.get("wh_1")
    assert await store.prune(NOW + 10, NOW + 10) == 1
    assert await store.get("wh_1") is None


async def test_read_that_a_write_overtook_is_not_remembered(database: CountingDatabase) -> None:
    store = SqliteWebhookStore(database)
    await store.add(webhook())
    database.gate.clear()
    slow = asyncio.create_task(store.get("wh_1"))
    while not database.reads:  # noqa: ASYNC110 - a plain value without an event
        await asyncio.sleep(0)
    await store.note_outcome("wh_1", False, NOW)
    database.gate.set()
    await slow
    found = await store.get("wh_1")
    assert found is not None
    assert found.consecutive_failures == 1
