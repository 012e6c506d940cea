"""A thread that owns a connection and executes the operations queued for it.

No operation of the event loop ever waits for the disk: it awaits a future, which is resolved only
when the operation's transaction has ended.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from gateway.store.sqlite.failure import translate, unavailable

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Operation(Generic[T]):
    """One call of a store: `run` may be executed again when its transaction was undone."""

    run: Callable[[sqlite3.Connection], T]
    future: asyncio.Future[T]
    due: float  # loop time from which nobody waits for it any more
    result: T | None = None
    error: Exception | None = None


Execute = Callable[[sqlite3.Connection, Sequence[Operation[Any]], Path], None]


class Worker:
    """Executes operations in the order they came, at most `group_size` at a time.

    At most `queue_size` wait; a further one is refused. One that has no answer within
    `patience_seconds` fails: a disk that hangs holds up the thread, and nobody else.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        execute: Execute,
        path: Path,
        *,
        queue_size: int,
        group_size: int,
        patience_seconds: float,
    ) -> None:
        self._connection = connection
        self._execute = execute
        self._path = path
        self._queue_size = queue_size
        self._group_size = group_size
        self._patience_seconds = patience_seconds
        self._loop = asyncio.get_running_loop()
        self._unanswered: deque[Operation[Any]] = deque()
        self._look: asyncio.TimerHandle | None = None
        self._waiting: deque[Operation[Any]] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        # A daemon: what it committed is safe, and a process that ends at once must not wait for it.
        self._thread = threading.Thread(target=self._work, name=execute.__name__, daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Queue an operation; the future gets its result, or its error.

        Raises StoreUnavailable when too many wait already, or the worker was stopped. So does the
        future when patience ends; only an operation that had begun may then still be committed.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        operation = Operation(run, future, self._loop.time() + self._patience_seconds)
        with self._changed:
            if self._stopped:
                raise unavailable(self._path, "it is closed", "start the gateway again")
            if len(self._waiting) >= self._queue_size:
                cause = f"{self._queue_size} operations wait already"
                raise unavailable(self._path, cause, "lower the load or use a faster volume")
            self._waiting.append(operation)
            self._changed.notify()
        self._unanswered.append(operation)
        if self._look is None:
            self._look = self._loop.call_at(operation.due, self._give_up)
        return future

    def stop(self) -> bool:
        """Execute what waits, then end the thread. Blocks; not for the event loop's thread.

        False when the disk does not let it end while there is patience: the thread is then left.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(self._patience_seconds)
        return not self._thread.is_alive()

    def _give_up(self) -> None:
        """Fail what has waited too long, and look again when the next one has."""
        self._look, now = None, self._loop.time()
        while self._unanswered:
            operation = self._unanswered[0]
            if not operation.future.done():
                if operation.due > now:
                    self._look = self._loop.call_at(operation.due, self._give_up)
                    return
                cause = f"no answer within {self._patience_seconds:g} s"
                operation.future.set_exception(unavailable(self._path, cause, "check its volume"))
            self._unanswered.popleft()

    def _work(self) -> None:
        while group := self._take():
            # Whoever stopped waiting before the start wants nothing written any more.
            wanted = [operation for operation in group if not operation.future.done()]
            if wanted:
                self._execute(self._connection, wanted, self._path)
                self._hand_back(wanted)

    def _take(self) -> Sequence[Operation[Any]]:
        with self._changed:
            while not self._waiting and not self._stopped:
                self._changed.wait()
            size = min(self._group_size, len(self._waiting))
            return [self._waiting.popleft() for _ in range(size)]

    def _hand_back(self, operations: Sequence[Operation[Any]]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve, operations)
        except RuntimeError:
            # The loop was closed: nobody awaits these any more, later ones still get executed.
            return

    def _resolve(self, operations: Sequence[Operation[Any]]) -> None:
        for operation in operations:
            if operation.future.done():
                continue
            if operation.error is None:
                operation.future.set_result(operation.result)
            else:
                operation.future.set_exception(operation.error)
        while self._unanswered and self._unanswered[0].future.done():
            self._unanswered.popleft()


def commit_group(
    connection: sqlite3.Connection, operations: Sequence[Operation[Any]], path: Path
) -> None:
    """Execute operations in ONE transaction, so that one wait for the disk serves them all.

    Each stands in a savepoint: one that fails undoes itself alone. No error leaves this function,
    each operation carries its own.
    """
    try:
        kept = _commit(connection, operations, path)
    except Exception as error:  # noqa: BLE001 - the thread goes on, and every caller is told
        _roll_back(connection)
        for operation in operations:
            operation.error = translate(error, path)
        return
    if not kept and len(operations) > 1:
        for operation in operations:
            operation.result = operation.error = None
            commit_group(connection, [operation], path)


def read_each(
    connection: sqlite3.Connection, operations: Sequence[Operation[Any]], path: Path
) -> None:
    """Execute reading operations, each on a snapshot of its own; errors as in `commit_group`."""
    for operation in operations:
        try:
            connection.execute("BEGIN")
            operation.result = operation.run(connection)
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the thread goes on, and the caller is told
            operation.error = translate(error, path)
            _roll_back(connection)


def _commit(
    connection: sqlite3.Connection, operations: Sequence[Operation[Any]], path: Path
) -> bool:
    """False when the engine undid the whole transaction with the failure of one operation."""
    connection.execute("BEGIN IMMEDIATE")
    for operation in operations:
        connection.execute("SAVEPOINT operation")
        try:
            operation.result = operation.run(connection)
        except Exception as error:  # noqa: BLE001 - its own caller gets it, its neighbours do not
            operation.error = translate(error, path)
            if not connection.in_transaction:
                return False
            connection.execute("ROLLBACK TO operation")
        connection.execute("RELEASE operation")
    connection.execute("COMMIT")
    return True


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        # Some failures undo the transaction themselves; the next BEGIN then finds none open.
        return
