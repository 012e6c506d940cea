"""The file's schema: numbered scripts, applied in order, each in a transaction of its own.

A script `NNNN_name.sql` begins and commits its transaction itself and sets `user_version` to its
number within it: whatever instant the process dies at, the file says truly how far it came.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gateway.store.sqlite.failure import refusal

APPLICATION_ID = int.from_bytes(b"GaTW", "big")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    script: str


def migrations() -> Sequence[Migration]:
    """Every migration this release has, in order."""
    scripts = [
        entry
        for entry in (files(__package__) / "migrations").iterdir()
        if entry.name.endswith(".sql")
    ]
    found = []
    for entry in scripts:
        number, _, name = entry.name.removesuffix(".sql").partition("_")
        found.append(Migration(int(number), name, entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.number)


def version(connection: sqlite3.Connection) -> int:
    """The number of the last migration applied; 0 for an empty file."""
    row = connection.execute("PRAGMA user_version").fetchone()
    return int(row[0])


def migrate(
    connection: sqlite3.Connection, path: Path, steps: Sequence[Migration] | None = None
) -> None:
    """Bring the file up to date.

    Raises SettingsError when the file is another program's, or a newer release wrote it, and
    sqlite3.Error when a script fails: the file then stands where the script before left it.
    """
    known = migrations() if steps is None else steps
    _refuse_foreign(connection, path)
    stands_at = version(connection)
    newest = known[-1].number
    if stands_at > newest:
        raise refusal(
            path,
            f"was written by a newer gateway (schema {stands_at}, this one knows {newest});"
            " run that release, or restore the file from before.",
        )
    for migration in known:
        if migration.number > stands_at:
            _apply(connection, migration)


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    try:
        connection.executescript(migration.script)
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application_id != APPLICATION_ID:
        raise refusal(path, "is another program's database; name a file of its own.")
