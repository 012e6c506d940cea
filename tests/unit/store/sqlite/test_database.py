"""Opening the file: what is set up, who is refused, and with which words."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from gateway.core.error import SettingsError
from gateway.store.sqlite import Database
from gateway.store.sqlite.migration import migrations

NOBODY = 65534


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = Database(path)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def refusal_of(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        await Database(path).open()
    (problem,) = caught.value.problems
    assert problem.startswith(f"store.sqlite.path: {path} ")
    assert problem.endswith(".")
    return problem


def permit(path: Path, mode: int) -> None:
    path.chmod(mode)


def permissions(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of ours; permissions bind us even when the tests run as root."""
    directory = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(directory, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield directory
    finally:
        directory.chmod(0o700)
        if root:
            os.seteuid(0)
        shutil.rmtree(directory)


async def test_directory_and_file_are_made_and_migrated(tmp_path: Path) -> None:
    async with opened(tmp_path / "deep" / "down" / "gateway.db") as database:
        rows = await database.fetch("PRAGMA user_version", {})
        assert rows[0][0] == migrations()[-1].number
        assert await database.fetch("SELECT * FROM job", {}) == []


async def test_commits_are_synced_to_a_write_ahead_log(tmp_path: Path) -> None:
    def pragmas(connection: sqlite3.Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    async with opened(tmp_path / "gateway.db") as database:
        assert await database.write(pragmas) == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "busy_timeout": 5000,
        }


async def test_file_and_its_logs_are_for_their_owner_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / "gateway.db"):
        modes = permissions(tmp_path)
    assert set(modes) == {"gateway.db", "gateway.db-wal", "gateway.db-shm", "gateway.db.lock"}
    assert set(modes.values()) == {0o600}


async def test_reopening_changes_nothing(tmp_path: Path) -> None:
    def schema(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
        return [tuple(row) for row in connection.execute("SELECT * FROM sqlite_schema")]

    async with opened(tmp_path / "gateway.db") as database:
        first = await database.read(schema)
    async with opened(tmp_path / "gateway.db") as database:
        assert await database.read(schema) == first
        assert len(first) > 10


async def test_empty_file_is_migrated(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").touch()
    async with opened(tmp_path / "gateway.db") as database:
        assert await database.fetch("SELECT * FROM message", {}) == []


async def test_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    async with opened(path) as database:
        await database.write(lambda connection: connection.execute("PRAGMA user_version = 99"))
    assert re.search(r"newer gateway \(schema 99, this one knows \d+\)", await refusal_of(path))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


async def test_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipe (name)")
    assert "another program's database" in await refusal_of(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("recipe",)]


async def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database at all " * 99)
    assert "not a database" in await refusal_of(path)
    assert path.read_text().startswith("no database")


async def test_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "Is a directory" in await refusal_of(tmp_path)


async def test_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    assert "cannot be used" in await refusal_of(tmp_path / "var" / "gateway.db")


async def test_read_only_directory_is_refused(unprivileged: Path) -> None:
    permit(unprivileged, 0o500)
    assert "(Permission denied)" in await refusal_of(unprivileged / "gateway.db")


async def test_unreadable_file_is_refused(unprivileged: Path) -> None:
    path = unprivileged / "gateway.db"
    async with opened(path):
        pass
    permit(path, 0)
    assert "(Permission denied)" in await refusal_of(path)
    permit(path, 0o600)
    async with opened(path):
        pass


async def test_second_owner_of_a_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    async with opened(path) as database:
        assert f"another gateway (process {os.getpid()})" in await refusal_of(path)
        # The one refused took nothing from the owner.
        assert await database.fetch("SELECT * FROM job", {}) == []
    async with opened(path):
        pass


async def test_refused_file_can_be_opened_once_mended(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.write_text("no database at all " * 99)
    await refusal_of(path)
    path.unlink()
    async with opened(path) as database:
        assert await database.fetch("SELECT * FROM job", {}) == []
