"""The writing thread: groups share a commit, failures stay with their own, the thread goes on."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.core.error import StoreUnavailable
from gateway.store.sqlite import Database

Run = Callable[[sqlite3.Connection], object]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "gateway.db", queue_size=50)
    await opened.open()
    await opened.write(lambda connection: connection.execute("CREATE TABLE note (text UNIQUE)"))
    yield opened
    await opened.close()


def add(text: str) -> Run:
    return lambda connection: connection.execute("INSERT INTO note VALUES (?)", [text]).rowcount


def fail(_: sqlite3.Connection) -> None:
    raise LookupError("of its own")


async def notes(database: Database) -> list[str]:
    rows = await database.fetch("SELECT text FROM note ORDER BY rowid", {})
    return [row["text"] for row in rows]


class Gate:
    """An operation that holds the writing thread, so that those behind it form one group."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._entered = threading.Event()
        self._opened = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def _wait(self, _: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._opened.wait(30)

    async def shut(self) -> None:
        self._task = asyncio.create_task(self._database.write(self._wait))
        assert await asyncio.to_thread(self._entered.wait, 30)

    async def open(self) -> None:
        self._opened.set()
        assert self._task is not None
        await self._task


@pytest.fixture
async def gate(database: Database) -> Gate:
    return Gate(database)


async def queue(database: Database, *operations: Run) -> list[asyncio.Task[object]]:
    tasks = [asyncio.create_task(database.write(operation)) for operation in operations]
    await asyncio.sleep(0)  # each task runs up to where it awaits its future
    return tasks


async def outcomes(tasks: list[asyncio.Task[object]]) -> list[object]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_operations_that_wait_share_one_transaction(database: Database, gate: Gate) -> None:
    statements: list[str] = []
    await database.write(lambda connection: connection.set_trace_callback(statements.append))
    await gate.shut()
    statements.clear()
    tasks = await queue(database, *(add(str(n)) for n in range(30)))
    await gate.open()
    assert await outcomes(tasks) == [1] * 30
    # The gate's own, then the one of all thirty.
    assert [sql for sql in statements if sql in {"BEGIN IMMEDIATE", "COMMIT"}] == [
        "COMMIT",
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]


async def test_failing_operation_leaves_its_neighbours_committed(
    database: Database, gate: Gate
) -> None:
    await gate.shut()
    half = [add("half"), add("one")]

    def written_then_failing(connection: sqlite3.Connection) -> None:
        for step in half:
            step(connection)

    tasks = await queue(database, add("one"), fail, written_then_failing, add("two"))
    await gate.open()
    first, second, third, fourth = await outcomes(tasks)
    assert (first, fourth) == (1, 1)
    assert isinstance(second, LookupError)
    assert isinstance(third, sqlite3.IntegrityError)
    assert await notes(database) == ["one", "two"]


async def test_operation_that_undoes_the_transaction_leaves_its_neighbours_committed(
    database: Database, gate: Gate
) -> None:
    await gate.shut()

    def undo_all(connection: sqlite3.Connection) -> None:
        # What the engine does itself on some failures of the disk.
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("disk I/O error")

    tasks = await queue(database, add("one"), undo_all, add("two"))
    await gate.open()
    first, second, third = await outcomes(tasks)
    assert (first, third) == (1, 1)
    assert isinstance(second, StoreUnavailable)
    assert await notes(database) == ["one", "two"]


async def test_failing_commit_fails_the_whole_group_and_writes_nothing(
    database: Database, gate: Gate
) -> None:
    def forbid(connection: sqlite3.Connection) -> None:
        connection.set_authorizer(
            lambda action, name, *_: (
                sqlite3.SQLITE_DENY
                if action == sqlite3.SQLITE_TRANSACTION and name == "COMMIT"
                else sqlite3.SQLITE_OK
            )
        )

    await gate.shut()
    tasks = await queue(database, forbid, add("one"), fail)
    await gate.open()
    for outcome in await outcomes(tasks):
        assert isinstance(outcome, StoreUnavailable)
    assert await notes(database) == []


async def test_full_disk_is_unavailable_and_nothing_is_lost(database: Database) -> None:
    await database.write(add("before"))
    (size,) = (await database.fetch("PRAGMA page_count", {}))[0]

    def cap(pages: int) -> Run:
        return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    await database.write(cap(size + 2))
    tasks = await queue(database, *(add(str(n) * 3000) for n in range(9)), add("small"))
    results = await outcomes(tasks)
    refused = [result for result in results if result != 1]
    assert refused
    for result in refused:
        assert isinstance(result, StoreUnavailable)
        assert str(database.path) in result.detail
        assert "full" in result.detail
        assert "free space" in result.detail
    acknowledged = [str(n) * 3000 for n in range(9) if results[n] == 1]
    acknowledged += ["small"] if results[9] == 1 else []
    assert await notes(database) == ["before", *acknowledged]
    await database.write(cap(10_000))
    await database.write(add("after"))
    assert (await notes(database))[-1] == "after"


async def test_file_locked_by_another_program_is_unavailable_until_it_ends(
    database: Database,
) -> None:
    await database.write(
        lambda connection: connection.execute("PRAGMA busy_timeout = 1").fetchall()
    )
    with sqlite3.connect(database.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"locked.*end the other program"):
            await database.write(add("one"))
        other.execute("ROLLBACK")
    other.close()
    assert await database.write(add("two")) == 1
    assert await notes(database) == ["two"]


async def test_cancelled_operation_that_has_not_begun_is_not_executed(
    database: Database, gate: Gate
) -> None:
    await gate.shut()
    cancelled, kept = await queue(database, add("cancelled"), add("kept"))
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await gate.open()
    assert await kept == 1
    assert await notes(database) == ["kept"]


async def test_operations_over_the_bound_are_refused(database: Database, gate: Gate) -> None:
    await gate.shut()
    tasks = await queue(database, *(add(str(n)) for n in range(51)))
    await gate.open()
    *taken, refused = await outcomes(tasks)
    assert taken == [1] * 50
    assert isinstance(refused, StoreUnavailable)
    assert "50 operations wait already" in refused.detail


# Long enough for a busy machine to begin an operation, short enough to wait for its end.
PATIENCE_SECONDS = 0.5


async def test_disk_that_hangs_fails_what_waits_and_writes_none_of_it(
    database: Database, tmp_path: Path
) -> None:
    await database.close()  # with its table
    database = Database(tmp_path / "gateway.db", patience_seconds=PATIENCE_SECONDS)
    await database.open()
    gate = Gate(database)
    await gate.shut()

    with pytest.raises(StoreUnavailable, match=r"no answer within 0\.5 s\): check its volume"):
        await database.write(add("late"))
    with pytest.raises(StoreUnavailable, match="no answer"):
        await gate.open()  # what was under way is not waited for either
    assert database._writer is not None
    database._writer._patience_seconds = 30.0  # the disk is back, the machine may be busy
    await database.write(add("after"))

    assert await notes(database) == ["after"]
    await database.close()


async def test_hung_disk_does_not_hold_up_the_end(tmp_path: Path) -> None:
    database = Database(tmp_path / "gateway.db", patience_seconds=PATIENCE_SECONDS)
    await database.open()
    gate = Gate(database)
    await gate.shut()

    await database.close()  # returns; the thread is left behind

    with pytest.raises(StoreUnavailable, match="no answer"):
        await gate.open()


async def test_what_was_answered_is_not_kept(database: Database) -> None:
    for number in range(100):
        await database.write(add(str(number)))

    assert database._writer is not None
    assert not database._writer._unanswered


async def test_probe_commits_and_changes_nothing(database: Database) -> None:
    before = await notes(database)
    written: list[str] = []
    await database.write(lambda connection: connection.set_trace_callback(written.append))

    free = await database.probe()

    assert free > 0
    assert written[-1] == "COMMIT"
    assert await notes(database) == before


async def test_probe_of_a_read_only_file_is_unavailable(database: Database) -> None:
    await database.write(lambda connection: connection.execute("PRAGMA query_only = ON"))

    with pytest.raises(StoreUnavailable):
        await database.probe()


async def test_close_executes_what_waits(tmp_path: Path) -> None:
    database = Database(tmp_path / "gateway.db")
    await database.open()
    await database.write(lambda connection: connection.execute("CREATE TABLE note (text)"))
    tasks = await queue(database, *(add(str(n)) for n in range(20)))
    await database.close()
    assert await outcomes(tasks) == [1] * 20
    await database.open()
    assert len(await notes(database)) == 20
    await database.close()


async def test_closed_database_is_unavailable(database: Database) -> None:
    await database.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.write(add("late"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await notes(database)


async def test_database_that_was_never_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="not open"):
        await Database(tmp_path / "gateway.db").write(add("early"))


async def test_reading_connection_cannot_write(database: Database) -> None:
    with pytest.raises(StoreUnavailable, match="readonly"):
        await database.read(add("one"))
    assert await notes(database) == []


async def test_failing_read_leaves_the_next_one_unharmed(database: Database) -> None:
    with pytest.raises(LookupError, match="of its own"):
        await database.read(fail)
    await database.write(add("one"))
    assert await notes(database) == ["one"]


async def test_read_sees_one_snapshot(database: Database) -> None:
    between = threading.Event()
    reading = threading.Event()

    def twice(connection: sqlite3.Connection) -> tuple[int, int]:
        before = len(connection.execute("SELECT * FROM note").fetchall())
        reading.set()
        assert between.wait(30)
        return before, len(connection.execute("SELECT * FROM note").fetchall())

    task = asyncio.create_task(database.read(twice))
    assert await asyncio.to_thread(reading.wait, 30)
    await database.write(add("meanwhile"))
    between.set()
    assert await task == (0, 0)
    assert await notes(database) == ["meanwhile"]


def test_loop_that_closed_meanwhile_does_not_stop_the_thread(tmp_path: Path) -> None:
    database = Database(tmp_path / "gateway.db")
    entered, opened = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        entered.set()
        assert opened.wait(30)
        connection.execute("CREATE TABLE note (text)")

    async def leave_behind() -> asyncio.Task[None]:
        await database.open()
        task = asyncio.create_task(database.write(hold))
        assert await asyncio.to_thread(entered.wait, 30)
        return task

    # The loop closes while the operation runs; its result then finds nobody.
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leave_behind()).result()
    opened.set()
    asyncio.run(database.close())

    async def look() -> list[str]:
        await database.open()
        found = await notes(database)
        await database.close()
        return found

    assert asyncio.run(look()) == []
