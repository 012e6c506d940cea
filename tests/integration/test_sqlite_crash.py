"""What was acknowledged outlives kill -9 at any instant: jobs, events, messages, verdicts.

Run as a program this file is the process that gets killed: it records and settles as fast as it
can, and prints a line for each thing that the store has acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.core.job import Job, JobChange, State
from gateway.core.outbox import DeliveryStatus
from gateway.core.retry import Delivered
from gateway.store.sqlite import Database, SqliteJobStore, SqliteOutbox
from tests.support.store import NOW, attempt_at, messages_of, new_job, next_change, timeline_of

ROOT = Path(__file__).parents[2]
# How many acknowledgements each process lives for; where it stands when it dies is up to chance.
LIFETIMES = (1, 9, 60, 150, 250, 400)
RECORDERS = 8
LEASE_SECONDS = 30.0


def acknowledge(*words: object) -> None:
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


async def record(jobs: SqliteJobStore, change: JobChange) -> Job:
    messages = messages_of(change, destination=f"wh_{change.job.id}")
    assert await jobs.record(change, timeline_of(change), messages)
    acknowledge("job", change.job.id, change.job.sequence)
    job = await jobs.get(change.job.id)
    assert job is not None
    return job


async def live_through(jobs: SqliteJobStore, ids: Iterator[str]) -> None:
    """Each job is created, moves twice and ends: four records, each with its messages."""
    for job_id in ids:
        job = await record(jobs, new_job(job_id))
        for step in (1, 2):
            job = await record(jobs, next_change(job, NOW + step, percentage=40.0 * step))
        await record(jobs, next_change(job, NOW + 3, state=State.COMPLETED))


async def deliver(outbox: SqliteOutbox) -> None:
    while True:
        for claim in await outbox.claim("webhook", 8, NOW + 10, LEASE_SECONDS):
            assert await outbox.settle(claim, Delivered(), attempt_at(claim, NOW + 10), NOW + 10)
            acknowledge("settled", claim.item.id)


async def run_until_killed(path: Path, name: str) -> None:
    database = Database(path)
    await database.open()
    jobs, outbox = SqliteJobStore(database), SqliteOutbox(database)
    await jobs.void_leases()
    ids = (f"{name}-{number}" for number in itertools.count())
    recorders = [live_through(jobs, ids) for _ in range(RECORDERS)]
    await asyncio.gather(*recorders, deliver(outbox))


@dataclass
class Acknowledged:
    """What the killed processes were told: each job's last sequence, each message settled."""

    sequences: dict[str, int] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)

    def take(self, line: str) -> None:
        match line.split():
            case ["job", job_id, sequence]:
                self.sequences[job_id] = int(sequence)
            case ["settled", message_id]:
                self.settled.add(message_id)
            case _:
                raise AssertionError(line)


def run_and_kill(path: Path, name: str, lines: int, known: Acknowledged) -> None:
    """Kill the process in the midst of its work, `lines` acknowledgements after its start."""
    command = [sys.executable, "-m", "tests.integration.test_sqlite_crash", str(path), name]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in itertools.islice(process.stdout, lines):
            known.take(line)
        process.kill()
        # What it was told before it died counts too; its last line may be torn.
        for line in process.stdout:
            if line.endswith("\n"):
                known.take(line)
    assert process.returncode == -signal.SIGKILL


async def assert_whole(database: Database, known: Acknowledged) -> None:
    jobs, outbox = SqliteJobStore(database), SqliteOutbox(database)
    for job_id, sequence in known.sequences.items():
        job = await jobs.get(job_id)
        assert job is not None, f"{job_id} was acknowledged and is gone"
        assert job.sequence >= sequence
        timeline = await jobs.timeline(job_id)
        assert [entry.sequence for entry in timeline] == list(range(1, job.sequence + 1))
    # Every event has its message, those that were never acknowledged included: one transaction.
    without = "SELECT event_id FROM event WHERE event_id NOT IN (SELECT event_id FROM message)"
    assert await database.fetch(without, {}) == []
    for message_id in known.settled:
        delivery = await outbox.get(message_id)
        assert delivery is not None
        assert delivery.message.status is DeliveryStatus.SUCCEEDED
        assert len(delivery.attempts) == 1
    assert [row[0] for row in await database.fetch("PRAGMA integrity_check", {})] == ["ok"]


async def deliver_rest(database: Database) -> None:
    """Everything that waits, or was in flight when its process died, can be claimed and settled."""
    jobs, outbox = SqliteJobStore(database), SqliteOutbox(database)
    await jobs.void_leases()
    while claims := await outbox.claim("webhook", 64, NOW + 10, LEASE_SECONDS):
        for claim in claims:
            assert await outbox.settle(claim, Delivered(), attempt_at(claim, NOW + 11), NOW + 11)
    assert await outbox.backlog() == []
    assert await outbox.next_due_at("webhook") is None
    ended = {DeliveryStatus.SUCCEEDED, DeliveryStatus.SUPERSEDED}
    rows = await database.fetch("SELECT DISTINCT status FROM message", {})
    assert {DeliveryStatus(row["status"]) for row in rows} <= ended


async def test_kill_at_any_instant_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    database = Database(path)
    known = Acknowledged()
    for number, lines in enumerate(LIFETIMES):
        await asyncio.to_thread(run_and_kill, path, f"round-{number}", lines, known)
        await database.open()
        await assert_whole(database, known)
        await database.close()
    assert len(known.sequences) > RECORDERS
    assert known.settled
    await database.open()
    await deliver_rest(database)
    await assert_whole(database, known)
    await database.close()


if __name__ == "__main__":
    asyncio.run(run_until_killed(Path(sys.argv[1]), sys.argv[2]))
