"""Files of every older release: brought up to date, they hold what they held."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from gateway.core.job import State
from gateway.core.outbox import DeliveryStatus
from gateway.core.retry import Delivered
from gateway.core.webhook import WebhookStatus
from gateway.store.outbox import DeliveryQuery
from gateway.store.sqlite import Database, SqliteJobStore, SqliteOutbox, SqliteWebhookStore
from gateway.store.sqlite.migration import migrate, migrations
from tests.support.store import NOW, attempt_at

DATA = Path(__file__).parents[3] / "data" / "schema"
ROWS = {int(path.stem): path.read_text() for path in sorted(DATA.glob("*.sql"))}
OLDER = [step.number for step in migrations()][:-1]


def write_old_file(path: Path, version: int) -> None:
    """A file as the release with this schema left it: the newest rows that schema can have."""
    filled = max(number for number in ROWS if number <= version)
    steps = list(migrations())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        migrate(connection, path, steps[:filled])
        connection.executescript(ROWS[filled])
        migrate(connection, path, steps[:version])


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = Database(path)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def schema(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        columns = "SELECT m.name, p.name, p.type FROM sqlite_schema m, pragma_table_xinfo(m.name) p"
        others = "SELECT type, name, sql FROM sqlite_schema WHERE type <> 'table'"
        return sorted(connection.execute(columns)) + sorted(connection.execute(others))


@pytest.mark.parametrize("version", OLDER)
async def test_upgraded_file_has_the_schema_of_a_new_one(tmp_path: Path, version: int) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    write_old_file(old, version)
    for path in (old, new):
        async with opened(path):
            pass
    assert schema(old) == schema(new)


@pytest.mark.parametrize("version", OLDER)
async def test_upgraded_file_holds_its_jobs_and_webhooks(tmp_path: Path, version: int) -> None:
    write_old_file(tmp_path / "gateway.db", version)
    async with opened(tmp_path / "gateway.db") as database:
        jobs, webhooks = SqliteJobStore(database), SqliteWebhookStore(database)
        ended, running = await jobs.get("job-1"), await jobs.get("job-2")
        timeline = await jobs.timeline("job-1")
        first, callback = await webhooks.get("wh_1"), await webhooks.get("wh_3")
    assert ended is not None
    assert running is not None
    assert (ended.state, ended.results, running.state) == (
        State.COMPLETED,
        {"highlights": []},
        State.QUEUED,
    )
    assert [entry.type for entry in timeline] == ["job.started", "job.completed"]
    assert first is not None
    assert callback is not None
    assert (first.filter, first.fields, dict(first.headers)) == (
        "data.progress > `50`",
        ("job_id",),
        {"X-Team": "blue"},
    )
    assert (first.status, first.consecutive_failures, first.last_success_at) == (
        WebhookStatus.ACTIVE,
        3,
        NOW - 60,
    )
    assert (first.failing_since, first.exhausted_count, callback.job_id) == (None, 0, "job-1")


@pytest.mark.parametrize("version", OLDER)
async def test_what_waited_in_an_old_file_is_delivered(tmp_path: Path, version: int) -> None:
    write_old_file(tmp_path / "gateway.db", version)
    async with opened(tmp_path / "gateway.db") as database:
        outbox = SqliteOutbox(database)
        log, _ = await outbox.deliveries(DeliveryQuery("wh_1"))
        claims = await outbox.claim("webhook", 10, NOW + 30, 60)
        settled = [
            await outbox.settle(claim, Delivered(), attempt_at(claim, NOW + 30), NOW + 31)
            for claim in claims
        ]
    assert [(each.message.status, len(each.attempts)) for each in log] == [
        (DeliveryStatus.RETRYING, 1),
        (DeliveryStatus.SUCCEEDED, 1),
    ]
    assert {claim.item.destination: claim.item.attempt for claim in claims} == {
        "wh_1": 2,
        "wh_2": 1,
    }
    assert settled == [True, True]
