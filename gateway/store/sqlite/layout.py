"""The file's layout, changed apart from a running gateway: what `gateway migrate … store` does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from gateway.store.sqlite.database import connect, prepare
from gateway.store.sqlite.failure import refusal
from gateway.store.sqlite.lock import FileLock
from gateway.store.sqlite.migration import (
    Migration,
    migrate,
    migrations,
    roll_back,
    standing,
    version,
)


class SqliteLayout:
    """One SQLite file. Every method raises SettingsError for one that cannot be used."""

    def __init__(self, path: Path, steps: Sequence[Migration] | None = None) -> None:
        self._path = path.absolute()
        self._steps = migrations() if steps is None else steps

    @property
    def where(self) -> str:
        """What is migrated, for people."""
        return f"SQLite file {self._path}"

    @property
    def newest(self) -> int:
        """The number of this release's last step."""
        return self._steps[-1].number

    def stands_at(self) -> int:
        """The number of the last step applied; 0 for a file that is not there. Changes nothing."""
        if not self._path.exists():
            return 0
        with self._translated():
            # Beside a running gateway too: a reader needs no lock of ours.
            address = f"{self._path.as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, uri=True)) as connection:
                return standing(connection, self._path, self._steps)

    def up(self) -> str | None:
        """Bring the file up to date; what was kept, in a sentence. The gateway must be stopped."""
        with self._alone() as connection:
            before = version(connection)
            copy = migrate(connection, self._path, self._steps)
            if before == version(connection):
                return None
        kept = "" if copy is None else f"; as it was: {copy}"
        return f"schema {before} to {self.newest}{kept}"

    def down(self) -> str:
        """Undo the last step; what was kept, in a sentence. The gateway must be stopped."""
        with self._alone() as connection:
            undone, copy = roll_back(connection, self._path, self._steps)
        return f"schema {undone.number} ({undone.name}) to {undone.number - 1}; as it was: {copy}"

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        if not self._path.exists():
            raise refusal(self._path, "is not there; the gateway makes it at its first start.")
        lock = FileLock(self._path)
        with self._translated():
            lock.acquire()
            try:
                with closing(connect(self._path)) as connection:
                    prepare(connection)
                    yield connection
            finally:
                lock.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise refusal(self._path, f"cannot be migrated ({error}).") from error
