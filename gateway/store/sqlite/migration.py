"""The file's schema: numbered scripts, applied in order, each in a transaction of its own.

A script `NNNN_name.sql` begins and commits its transaction itself and sets `user_version` to its
number within it: whatever instant the process dies at, the file says truly how far it came. The way
back is `NNNN_name.down.sql`, which sets the number before; what it drops is in the copy of the file
that is made before every change of a file that holds something.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, count
from pathlib import Path

from gateway.store.sqlite.failure import refusal

_DOWN = ".down"
APPLICATION_ID = int.from_bytes(b"GaTW", "big")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema; `down` None means that only the copy leads back."""

    number: int
    name: str
    script: str
    down: str | None = None


def migrations() -> Sequence[Migration]:
    """Every migration this release has, in order."""
    folder = files(__package__) / "migrations"
    scripts = {
        entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }
    found = []
    for stem, script in scripts.items():
        if not stem.endswith(_DOWN):
            number, _, name = stem.partition("_")
            found.append(Migration(int(number), name, script, scripts.get(stem + _DOWN)))
    return sorted(found, key=lambda migration: migration.number)


def version(connection: sqlite3.Connection) -> int:
    """The number of the last migration applied; 0 for an empty file."""
    row = connection.execute("PRAGMA user_version").fetchone()
    return int(row[0])


def migrate(
    connection: sqlite3.Connection, path: Path, steps: Sequence[Migration] | None = None
) -> Path | None:
    """Bring the file up to date; the copy that was made before, if it held anything.

    Raises SettingsError when the file is another program's, or a newer release wrote it, and
    sqlite3.Error when a script fails: the file then stands where the script before left it.
    """
    known = migrations() if steps is None else steps
    stands_at = standing(connection, path, known)
    missing = [migration for migration in known if migration.number > stands_at]
    copy = keep_copy(connection, path) if missing and stands_at else None
    for migration in missing:
        _run(connection, migration.script)
    return copy


def roll_back(
    connection: sqlite3.Connection, path: Path, steps: Sequence[Migration] | None = None
) -> tuple[Migration, Path]:
    """Undo the last migration; it, and the copy of the file that was made before.

    Raises SettingsError when there is no way back, and what `migrate` raises.
    """
    known = migrations() if steps is None else steps
    stands_at = standing(connection, path, known)
    last = next((each for each in known if each.number == stands_at), None)
    if last is None:
        raise refusal(path, "holds nothing yet, so there is nothing to roll back.")
    if last.down is None:
        raise refusal(
            path,
            f"stands at migration {last.number} ({last.name}), which has no way back: "
            f"with the gateway stopped, put a copy named {path.name}.schema-… in its place.",
        )
    copy = keep_copy(connection, path)
    _run(connection, last.down)
    return last, copy


def standing(connection: sqlite3.Connection, path: Path, known: Sequence[Migration]) -> int:
    """The number of the last migration applied. Raises SettingsError for a file not ours."""
    _refuse_foreign(connection, path)
    stands_at = version(connection)
    newest = known[-1].number
    if stands_at > newest:
        raise refusal(
            path,
            f"was written by a newer gateway (schema {stands_at}, this one knows {newest});"
            " run that release, or `gateway migrate down store` of it, or restore the copy"
            f" {path.name}.schema-{newest} with the gateway stopped.",
        )
    return stands_at


def keep_copy(connection: sqlite3.Connection, path: Path) -> Path:
    """Copy the file as it is to `<name>.schema-N` beside it, whole or not at all."""
    stem = f"{path.name}.schema-{version(connection)}"
    names = chain((stem,), (f"{stem}.{number}" for number in count(2)))
    copy = next(each for name in names if not (each := path.with_name(name)).exists())
    partial = copy.with_name(copy.name + ".partial")
    # As private as the file itself: it holds secrets. Made before the engine opens it.
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(partial)) as target:
        connection.backup(target)
    partial.replace(copy)
    return copy


def _run(connection: sqlite3.Connection, script: str) -> None:
    try:
        connection.executescript(script)
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application_id != APPLICATION_ID:
        raise refusal(path, "is another program's database; name a file of its own.")
