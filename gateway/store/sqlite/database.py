"""The file: opened by one process alone, written by one thread, read by another."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from gateway.store.sqlite.failure import refusal, unavailable
from gateway.store.sqlite.lock import FileLock
from gateway.store.sqlite.migration import APPLICATION_ID, migrate
from gateway.store.sqlite.worker import Worker, commit_group, read_each

T = TypeVar("T")

# The first with STRICT tables, of the features used: RETURNING and generated columns are older.
_OLDEST_ENGINE = (3, 37, 0)
_BUSY_TIMEOUT_SECONDS = 5.0
_CACHE_KIBIBYTES = 16 * 1024
_LOG_BYTES = 64 * 1024**2


class Database:
    """One SQLite file, whose operations run on threads of their own.

    Writes are committed in groups: what waits while a commit is under way shares the next one. An
    operation is a function of a connection, without other effects: it may run twice. Nobody waits
    longer for the disk than `patience_seconds`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        queue_size: int = 10_000,
        group_size: int = 256,
        patience_seconds: float = 5.0,
    ) -> None:
        self.path = Path(path).absolute()
        self._queue_size = queue_size
        self._group_size = group_size
        self._patience_seconds = patience_seconds
        self._lock = FileLock(self.path)
        self._files = ExitStack()
        self._writer: Worker | None = None
        self._reader: Worker | None = None

    async def open(self) -> None:
        """Make the directory, lock and open the file, and bring its schema up to date.

        Raises SettingsError with one sentence when the file cannot be used.
        """
        self._files, writing, reading = await asyncio.to_thread(self._open_files)
        self._writer = self._worker(writing, commit_group, self._group_size)
        self._reader = self._worker(reading, read_each, 1)

    async def close(self) -> None:
        """Execute what waits, then give the file up. Does nothing when it is not open."""
        workers = [worker for worker in (self._writer, self._reader) if worker is not None]
        ended = [await asyncio.to_thread(worker.stop) for worker in workers]
        # The last connection to close writes the log back into the file. One that hangs in the
        # engine cannot be closed; what it committed is in the log, which the next start reads.
        if all(ended):
            await asyncio.to_thread(self._files.close)

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Execute and commit; returns only when the result is on the disk.

        Raises StoreUnavailable when the file's condition prevents it, with nothing written unless
        the disk is what hangs: it may then write in the end what it had begun.
        """
        return await self._opened(self._writer).submit(operation)

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Execute on a snapshot that holds every write that has returned."""
        return await self._opened(self._reader).submit(operation)

    async def execute(self, sql: str, values: Mapping[str, object]) -> int:
        """`write` one statement; how many rows it changed."""
        return await self.write(lambda connection: connection.execute(sql, values).rowcount)

    async def fetch(self, sql: str, values: Mapping[str, object]) -> Sequence[sqlite3.Row]:
        """`read` one statement's rows."""
        return await self.read(lambda connection: connection.execute(sql, values).fetchall())

    async def probe(self) -> int:
        """Read and commit, changing nothing: how many bytes its volume has left.

        Raises StoreUnavailable as `write` does.
        """
        await self.fetch("PRAGMA application_id", {})
        return await self.write(self._touch)

    def _touch(self, connection: sqlite3.Connection) -> int:
        # What it is already: the page is written and synced all the same.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        return shutil.disk_usage(self.path.parent).free

    def _opened(self, worker: Worker | None) -> Worker:
        if worker is None:
            raise unavailable(self.path, "it is not open", "start the gateway")
        return worker

    def _worker(
        self,
        connection: sqlite3.Connection,
        execute: Callable[..., None],
        group_size: int,
    ) -> Worker:
        return Worker(
            connection,
            execute,
            self.path,
            queue_size=self._queue_size,
            group_size=group_size,
            patience_seconds=self._patience_seconds,
        )

    def _open_files(self) -> tuple[ExitStack, sqlite3.Connection, sqlite3.Connection]:
        if sqlite3.sqlite_version_info < _OLDEST_ENGINE:
            problem = (
                f"needs SQLite 3.37 or later, this is {sqlite3.sqlite_version}; update Python."
            )
            raise refusal(self.path, problem)
        with ExitStack() as opened:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock.acquire()
                opened.callback(self._lock.release)
                create(self.path)
                writing = connect(self.path)
                opened.callback(writing.close)
                prepare(writing)
                migrate(writing, self.path)
                reading = connect(self.path)
                opened.callback(reading.close)
                reading.execute("PRAGMA query_only = ON")
            except (OSError, sqlite3.Error) as error:
                cause = error.strerror if isinstance(error, OSError) else error
                problem = f"cannot be used ({cause}); name a file where the gateway may write."
                raise refusal(self.path, problem) from error
            return opened.pop_all(), writing, reading


def create(path: Path) -> None:
    """Make the file, if it is not there."""
    # For its owner alone, as it holds secrets; the engine gives its log files the same mode. Never
    # once a connection is open: closing any descriptor of the file drops the engine's locks on it
    # (https://www.sqlite.org/howtocorrupt.html section 2.2).
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def connect(path: Path) -> sqlite3.Connection:
    """A connection as the stores use it."""
    # No implicit transactions (isolation_level); made here, then used by one other thread alone.
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.row_factory = sqlite3.Row
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Set what a file is written with. Raises sqlite3.OperationalError when its volume cannot."""
    (mode,) = connection.execute("PRAGMA journal_mode = wal").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"its volume does not allow a write-ahead log, only {mode}")
    # FULL: a commit that was acknowledged outlives a power cut, not only the process.
    connection.execute("PRAGMA synchronous = full")
    connection.execute("PRAGMA foreign_keys = on")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    # The indexes of a busy outbox stay in memory: the default of 2 MiB makes a write ten reads.
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
