"""The file's layout, up and down: whole or not at all, with a copy of what was."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from gateway.core.error import SettingsError
from gateway.store.sqlite.layout import SqliteLayout
from gateway.store.sqlite.lock import FileLock
from gateway.store.sqlite.migration import APPLICATION_ID, Migration, migrations

ROWS = 10_000
FIRST = Migration(
    1,
    "first",
    f"""BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION_ID};
    CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
    INSERT INTO item SELECT i, 'item ' || i FROM n;
    PRAGMA user_version = 1; COMMIT;""",  # noqa: S608 - a number of our own
)
UPPER = Migration(
    2,
    "upper",
    "BEGIN IMMEDIATE; UPDATE item SET name = upper(name); PRAGMA user_version = 2; COMMIT;",
    "BEGIN IMMEDIATE; UPDATE item SET name = lower(name); PRAGMA user_version = 1; COMMIT;",
)
STEPS = (FIRST, UPPER)


def names(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name FROM item").fetchall()
    assert len(rows) == ROWS
    return {row[0] for row in rows}


def schema(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        # The engine's own tables stay once they are made.
        query = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
        rows = connection.execute(query).fetchall()
    return {" ".join(row[0].split()) for row in rows}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.db"
    path.touch()
    SqliteLayout(path, [FIRST]).up()
    return path


def test_up_and_down_change_every_row_and_keep_a_copy_of_what_was(path: Path) -> None:
    layout = SqliteLayout(path, STEPS)
    before = names(path)

    assert layout.up() == f"schema 1 to 2; as it was: {path}.schema-1"
    after = names(path)
    assert after == {name.upper() for name in before}
    assert names(path.with_name("gateway.db.schema-1")) == before

    assert layout.down() == f"schema 2 (upper) to 1; as it was: {path}.schema-2"
    assert (names(path), layout.stands_at()) == (before, 1)
    assert names(path.with_name("gateway.db.schema-2")) == after


def test_copies_are_private_and_none_replaces_another(path: Path) -> None:
    layout = SqliteLayout(path, STEPS)
    for _ in range(2):
        layout.up()
        layout.down()
    copies = sorted(each.name for each in path.parent.glob("*.schema-*"))
    assert copies == [f"gateway.db.schema-{end}" for end in ("1", "1.2", "2", "2.2")]
    assert {each.stat().st_mode & 0o777 for each in path.parent.glob("*.schema-*")} == {0o600}


def test_up_of_a_file_that_is_up_to_date_does_nothing(path: Path) -> None:
    assert SqliteLayout(path, [FIRST]).up() is None
    assert list(path.parent.glob("*.schema-*")) == []


def test_step_without_a_way_back_is_refused_and_says_what_is(path: Path) -> None:
    layout = SqliteLayout(path, [FIRST])
    with pytest.raises(SettingsError, match=r"migration 1 \(first\), which has no way back.*copy"):
        layout.down()
    assert layout.stands_at() == 1


def test_file_of_a_newer_release_is_refused_and_says_where_the_old_one_is(path: Path) -> None:
    SqliteLayout(path, STEPS).up()
    older = SqliteLayout(path, [FIRST])
    for act in (older.up, older.down, older.stands_at):
        with pytest.raises(SettingsError, match=r"newer gateway.*gateway\.db\.schema-1"):
            act()


def test_file_in_use_is_left_alone_and_its_standing_is_told(path: Path) -> None:
    layout = SqliteLayout(path, STEPS)
    holder = FileLock(path)
    holder.acquire()
    try:
        with pytest.raises(SettingsError, match="in use by another gateway"):
            layout.up()
        assert layout.stands_at() == 1
    finally:
        holder.release()


def test_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    layout = SqliteLayout(tmp_path / "none.db", STEPS)
    assert layout.stands_at() == 0
    with pytest.raises(SettingsError, match="is not there"):
        layout.up()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("direction", ["up", "down"])
def test_crash_in_the_middle_leaves_every_row_as_it_was(path: Path, direction: str) -> None:
    """The process dies by SIGKILL when half of the rows are changed, before the commit."""
    if direction == "down":
        SqliteLayout(path, STEPS).up()
    before, stands_at = names(path), SqliteLayout(path, STEPS).stands_at()
    script = textwrap.dedent(f"""
        import os, signal, sys
        from gateway.store.sqlite import layout, migration
        from tests.unit.store.sqlite.test_layout import STEPS, Path

        def connect(path, connect=layout.connect):
            connection = connect(path)
            seen = 0
            def change(text):
                nonlocal seen
                seen += 1
                if seen == {ROWS // 2}:
                    os.kill(os.getpid(), signal.SIGKILL)
                return text
            connection.create_function("upper", 1, change)
            connection.create_function("lower", 1, change)
            return connection

        layout.connect = connect
        layout.SqliteLayout(Path(sys.argv[1]), STEPS).{direction}()
    """)
    root = Path(__file__).resolve().parents[4]
    command = [sys.executable, "-c", script, str(path)]
    died = subprocess.run(command, cwd=root, check=False, capture_output=True)

    assert died.returncode == -9, died.stderr.decode()
    layout = SqliteLayout(path, STEPS)
    assert (names(path), layout.stands_at()) == (before, stands_at)
    getattr(layout, direction)()
    assert names(path) != before


@pytest.mark.parametrize(
    "migration", [each for each in migrations() if each.down], ids=lambda each: each.name
)
def test_way_back_of_each_step_leads_to_the_schema_before(
    tmp_path: Path, migration: Migration
) -> None:
    path, fresh = tmp_path / "gateway.db", tmp_path / "fresh.db"
    steps = [each for each in migrations() if each.number <= migration.number]
    for file, known in ((path, steps), (fresh, steps[:-1])):
        file.touch()
        SqliteLayout(file, known).up()
    layout = SqliteLayout(path, steps)
    layout.down()
    assert layout.stands_at() == migration.number - 1
    assert schema(path) == schema(fresh)
    layout.up()


def test_every_step_but_the_first_has_a_way_back() -> None:
    assert [each.name for each in migrations() if each.down is None] == ["initial"]
