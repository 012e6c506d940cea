"""Two replicas over one store: what one records the other knows, and only owners observe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.core.error import StoreUnavailable
from gateway.core.job import Job, JobChange, Observation, State
from gateway.core.transition import abandon
from gateway.job.birth import Creation
from gateway.job.orphan import Orphans
from gateway.job.tracker import Tracker
from tests.support.job import (
    INSTANCE,
    NOW,
    Clock,
    Jobs,
    Recorder,
    ScriptedUpstream,
    assembled,
    serving,
)

OTHER = "two"


class Beats:
    """Signs of life as a test sets them."""

    def __init__(self) -> None:
        self.ended: dict[str, float] = {}

    async def beat(self, replica: str, instance: str, now: float, until: float) -> int:
        self.ended[instance] = until
        return 1

    async def leave(self, replica: str) -> None:
        """Nobody asks."""

    async def expect(self, instances: Collection[str], until: float) -> None:
        self.ended = {**dict.fromkeys(instances, until), **self.ended}

    async def gone(self, before: float) -> Sequence[str]:
        return [name for name, until in self.ended.items() if until <= before]


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    upstream = ScriptedUpstream()
    async with (
        serving(upstream) as url,
        assembled(tmp_path / "jobs.db", url, upstream, clock=Clock()) as made,
    ):
        yield made


def neighbour(jobs: Jobs, *, own_only: bool = False, adopt: bool = True) -> Tracker:
    """Another replica's tracker over the same store."""

    async def prepare(job: Job) -> None:
        jobs.prepared.append(job)

    async def details(job_id: str) -> Observation | None:
        return None

    return Tracker(
        jobs=jobs.store,
        contract=jobs.tracker._intake._contract,
        rule=jobs.tracker._intake._rule,
        subscribers=(),
        prepare=prepare,
        details=details,
        instance=OTHER,
        own_only=own_only,
        adopt=adopt,
        metrics=jobs.metrics,
        now=jobs.clock,
        token=lambda size: b"\1" * size,
    )


def seen(at: float, **fields: object) -> Observation:
    return Observation("j1", NOW + at, **fields)  # type: ignore[arg-type]  # fields of its own


async def stored(jobs: Jobs) -> Job:
    job = await jobs.store.get("j1")
    assert job is not None
    return job


# --- what another recorded ------------------------------------------------------------------------


async def test_change_of_another_replica_is_taken_up_with_its_events(jobs: Jobs) -> None:
    other, heard = neighbour(jobs), Recorder()
    other.listeners_elsewhere.append(heard)
    await jobs.create()
    await other.refresh("j1", 1)
    await jobs.tracker.observe(seen(1, stage="a", percentage=5.0), "poll")
    known = await stored(jobs)
    await other.refresh("j1", known.version)
    assert other.active("j1") == known
    assert heard.sequences() == list(range(1, known.sequence + 1))


async def test_what_is_known_already_is_not_told_again(jobs: Jobs) -> None:
    heard = Recorder()
    jobs.tracker.listeners_elsewhere.append(heard)
    await jobs.create()
    await jobs.tracker.refresh("j1", 1)
    assert heard.changes == []


async def test_end_elsewhere_ends_it_here(jobs: Jobs) -> None:
    other = neighbour(jobs)
    await jobs.create()
    await other.open()
    await jobs.tracker.observe(seen(1, state=State.CANCELLED), "poll")
    assert other.active("j1") is not None
    await other.refresh("j1", (await stored(jobs)).version)
    assert other.active("j1") is None
    assert other.active_count == 0


async def test_missed_notices_are_made_good_by_a_look_at_the_store(jobs: Jobs) -> None:
    other = neighbour(jobs)
    await jobs.create("j1")
    await other.open()
    await jobs.create("j2")
    await jobs.tracker.observe(seen(1, state=State.FAILED, error={"error_type": "x"}), "poll")
    await other.reload()
    assert other.active("j1") is None
    assert other.active("j2") is not None


async def test_what_another_recorded_first_is_told_here_before_its_notice_comes(
    jobs: Jobs,
) -> None:
    other, heard = neighbour(jobs), Recorder()
    other.listeners_elsewhere.append(heard)
    await jobs.create()
    await other.open()
    await jobs.tracker.observe(seen(1, state=State.CANCELLED), "poll")

    await other.observe(seen(1, state=State.CANCELLED), "poll")

    assert heard.sequences() == [2]
    assert other.active("j1") is None


async def test_change_whose_answer_was_lost_is_told_when_it_is_seen_again(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Recorder()
    jobs.tracker.listeners_elsewhere.append(heard)
    await jobs.create()
    record = jobs.store.record

    async def without_answer(*args: Any) -> bool:
        await record(*args)
        raise StoreUnavailable("it answers too late")

    monkeypatch.setattr(jobs.store, "record", without_answer)
    with pytest.raises(StoreUnavailable):
        await jobs.tracker.observe(seen(1, state=State.CANCELLED), "poll")
    monkeypatch.undo()
    await jobs.tracker.observe(seen(1, state=State.CANCELLED), "poll")

    assert [*jobs.recorder.sequences(), *heard.sequences()] == [1, 2]
    assert [entry.sequence for entry in await jobs.store.timeline("j1")] == [1, 2]


async def test_two_replicas_that_see_the_same_write_one_history(jobs: Jobs) -> None:
    other = neighbour(jobs)
    await jobs.create()
    await other.open()
    for at, tracker in enumerate((jobs.tracker, other, other, jobs.tracker), start=1):
        await tracker.observe(seen(at, stage=f"s{at % 2}", percentage=10.0 * at), "poll")
    await other.observe(seen(9, state=State.CANCELLED), "poll")
    await jobs.tracker.observe(seen(9, state=State.CANCELLED), "poll")
    entries = await jobs.store.timeline("j1")
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.type for entry in entries].count("job.cancelled") == 1


# --- whose job it is ------------------------------------------------------------------------------


async def test_other_instances_jobs_are_not_observed(jobs: Jobs) -> None:
    other = neighbour(jobs, own_only=True)
    await jobs.create()
    await other.open()
    before = await stored(jobs)
    other.offer(seen(1, found=False), "client")
    await other.observe(seen(99, found=False), "poll")
    await other.observe(seen(999, found=False), "poll")
    await other.close()
    assert await stored(jobs) == before


async def test_own_jobs_alone_count_as_active(jobs: Jobs) -> None:
    other = neighbour(jobs, own_only=True)
    await jobs.create()
    await other.open()
    await other.created(Observation("mine", NOW, state=State.QUEUED), Creation("bob"))
    assert other.active_count == 1


async def test_jobs_of_an_instance_that_is_gone_end_as_lost(jobs: Jobs) -> None:
    other, beats = neighbour(jobs, own_only=True), Beats()
    orphans = Orphans(
        jobs=jobs.store,
        replicas=beats,
        tracker=other,
        instance=OTHER,
        lost_after_seconds=60.0,
        lease_seconds=30.0,
        now=jobs.clock,
    )
    await jobs.create()
    await other.open()
    beats.ended = {INSTANCE: NOW + 30, OTHER: NOW, "without jobs": NOW}
    jobs.clock.advance(89)
    assert await orphans.end() == 0
    jobs.clock.advance(1)
    assert await orphans.end() == 1
    assert await orphans.end() == 0
    job = await stored(jobs)
    assert job.state is State.FAILED
    assert job.error is not None
    assert job.error["error_type"] == "job_lost"


async def test_job_that_is_still_leased_is_left_to_its_holder(jobs: Jobs) -> None:
    other, beats = neighbour(jobs, own_only=True), Beats()
    orphans = Orphans(
        jobs=jobs.store,
        replicas=beats,
        tracker=other,
        instance=OTHER,
        lost_after_seconds=0.0,
        lease_seconds=30.0,
        now=jobs.clock,
    )
    await jobs.create()
    await other.open()
    await jobs.store.claim_due(INSTANCE, 1, NOW, 30.0)
    beats.ended = {INSTANCE: NOW}
    assert await orphans.end() == 0
    jobs.clock.advance(30)
    assert await orphans.end() == 1


async def test_ended_job_is_not_abandoned(jobs: Jobs) -> None:
    await jobs.create()
    await jobs.tracker.observe(seen(1, state=State.CANCELLED), "poll")
    assert abandon(await stored(jobs), NOW) is None


# --- a store that lost its data -------------------------------------------------------------------


async def test_jobs_that_the_store_lost_are_recorded_anew_once(jobs: Jobs) -> None:
    other = neighbour(jobs)
    await jobs.create()
    await other.open()
    await jobs.tracker.observe(seen(1, stage="a", percentage=50.0), "poll")
    before = await stored(jobs)
    await jobs.store._database.execute("DELETE FROM job", {})
    jobs.prepared.clear()
    jobs.clock.advance(5)
    assert [await jobs.tracker.restore(), await other.restore()] == [1, 0]
    after = await stored(jobs)
    assert (after.owner, after.state, after.percentage) == ("alice", State.RUNNING, 50.0)
    assert after.incarnation != before.incarnation
    assert [entry.sequence for entry in await jobs.store.timeline("j1")] == [1]
    assert [job.id for job in jobs.prepared] == ["j1"]
    assert await jobs.tracker.observe(seen(2, state=State.CANCELLED), "poll")
    assert (await stored(jobs)).state is State.CANCELLED


# --- sharing the work -----------------------------------------------------------------------------


@pytest.mark.parametrize(("replicas", "expected"), [(1, 12), (3, 5), (5, 4)])
async def test_one_of_many_replicas_leaves_the_others_their_part(
    jobs: Jobs, replicas: int, expected: int
) -> None:
    watcher = jobs.watcher
    watcher._replicas = lambda: replicas
    for number in range(12):
        jobs.upstream.status[f"j{number}"] = {"id": f"j{number}", "status": "running"}
        await jobs.create(f"j{number}")
    await watcher._claim()
    assert len(watcher._watches) == expected
    await watcher._poller.close()
    for watch in watcher._watches.values():
        if watch.stream is not None:
            watch.stream.cancel()


async def test_listeners_of_changes_here_do_not_hear_those_of_others(jobs: Jobs) -> None:
    other, here = neighbour(jobs), list[JobChange]()

    async def listen(change: JobChange) -> None:
        here.append(change)

    other.listeners.append(listen)
    await jobs.create()
    await other.refresh("j1", 1)
    assert here == []
