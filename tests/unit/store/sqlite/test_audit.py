"""The audit log's own guard: the file itself refuses to change a line or to drop a fresh one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from gateway.core.audit import AuditEntry
from gateway.store.sqlite.audit import append_entries
from gateway.store.sqlite.migration import migrate


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        migrate(opened, Path("gateway.db"))
        yield opened


def stored(connection: sqlite3.Connection) -> list[str]:
    return [action for (action,) in connection.execute("SELECT action FROM audit")]


@pytest.mark.parametrize(
    "statement", ["UPDATE audit SET action = 'x'", "UPDATE audit SET at = 0", "DELETE FROM audit"]
)
def test_fresh_line_can_be_neither_changed_nor_deleted(
    connection: sqlite3.Connection, statement: str
) -> None:
    append_entries([AuditEntry(time.time(), "webhook.created", "wh_1")], connection)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    assert stored(connection) == ["webhook.created"]


def test_old_line_can_be_deleted_but_not_changed(connection: sqlite3.Connection) -> None:
    append_entries([AuditEntry(time.time() - 86500, "webhook.created", "wh_1")], connection)
    change = partial(connection.execute, "UPDATE audit SET action = 'x'")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        change()
    connection.execute("DELETE FROM audit")
    assert stored(connection) == []
