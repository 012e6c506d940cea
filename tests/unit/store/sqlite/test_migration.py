"""Migrations: in order, each whole or not at all."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store.sqlite.migration import APPLICATION_ID, Migration, migrate, migrations, version

FIRST = Migration(
    1,
    "first",
    f"BEGIN; CREATE TABLE a (x); PRAGMA application_id = {APPLICATION_ID};"
    " PRAGMA user_version = 1; COMMIT;",
)
SECOND = Migration(2, "second", "BEGIN; INSERT INTO a VALUES (2); PRAGMA user_version = 2; COMMIT;")
BROKEN = Migration(2, "broken", "BEGIN; DROP TABLE a; SELECT * FROM nowhere; COMMIT;")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        yield opened


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    numbers = [migration.number for migration in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


@pytest.mark.parametrize("migration", migrations(), ids=lambda migration: migration.name)
def test_script_is_one_transaction_that_sets_its_number(migration: Migration) -> None:
    code = re.sub(r"--.*", "", migration.script).strip()
    assert code.startswith("BEGIN IMMEDIATE;")
    assert code.endswith("COMMIT;")
    assert code.count("COMMIT;") == 1
    assert f"PRAGMA user_version = {migration.number};" in code


def test_only_the_missing_ones_are_applied(connection: sqlite3.Connection, tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    migrate(connection, path, [FIRST])
    assert version(connection) == 1
    migrate(connection, path, [FIRST, SECOND])
    migrate(connection, path, [FIRST, SECOND])
    assert version(connection) == 2
    assert connection.execute("SELECT x FROM a").fetchall() == [(2,)]


def test_failing_script_leaves_the_file_where_it_stood(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.db"
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(connection, path, [FIRST, BROKEN])
    assert version(connection) == 1
    assert not connection.in_transaction
    assert connection.execute("SELECT x FROM a").fetchall() == []
