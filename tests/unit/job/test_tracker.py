"""Observations become recorded changes: each job one true history, committed before it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.core.contract import Unreadable
from gateway.core.error import StoreUnavailable
from gateway.core.identifier import derived
from gateway.core.job import EventType, Job, JobChange, Observation, State
from gateway.core.outbox import Message
from gateway.core.transition import WatchRule, advance
from gateway.job import birth as birth_module
from gateway.job.birth import UNKNOWN_OWNER, Creation
from tests.support.job import NOW, Clock, Jobs, ScriptedUpstream, assembled, serving

STARTED, PROGRESS = EventType.STARTED, EventType.PROGRESS
COMPLETED, FAILED = EventType.COMPLETED, EventType.FAILED
CREATION = Creation("alice", request_id="r1", webhook_urls=("https://me.example/hook",))


class Subscriber:
    """Wants a message of every event."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []

    async def messages(
        self, change: JobChange, envelopes: Sequence[Mapping[str, Any]]
    ) -> Sequence[Message]:
        self.told.extend(envelopes)
        return [
            Message(
                id=derived("dlv_", event.at, document["id"], "wh_1"),
                sink="webhook",
                destination="wh_1",
                kind=event.type.value,
                event_id=document["id"],
                job_id=change.job.id,
                sequence=event.sequence,
                body=orjson.dumps(document),
                created_at=event.at,
                due_at=event.at,
            )
            for event, document in zip(change.events, envelopes, strict=True)
        ]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def upstream() -> ScriptedUpstream:
    return ScriptedUpstream()


@pytest.fixture
def subscriber() -> Subscriber:
    return Subscriber()


@pytest.fixture
async def jobs(
    tmp_path: Path, upstream: ScriptedUpstream, clock: Clock, subscriber: Subscriber
) -> AsyncIterator[Jobs]:
    async with (
        serving(upstream) as url,
        assembled(
            tmp_path / "jobs.db", url, upstream, clock=clock, subscribers=[subscriber]
        ) as made,
    ):
        yield made


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(birth_module, "_RECORD_RETRY_SECONDS", 0.0)


def seen(at: float = 0, state: State = State.RUNNING, **fields: Any) -> Observation:
    return Observation("j1", NOW + at, state=state, **fields)


def queued(**fields: Any) -> Observation:
    return seen(state=State.QUEUED, **fields)


async def stored(jobs: Jobs) -> Job:
    job = await jobs.store.get("j1")
    assert job is not None
    return job


class TestCreation:
    async def test_is_committed_with_its_event_and_message_when_it_returns(
        self, jobs: Jobs
    ) -> None:
        job = await jobs.tracker.created(queued(subject="v1"), CREATION)
        assert (job.owner, job.request_id, job.subject) == ("alice", "r1", "v1")
        assert (await stored(jobs)).webhook_urls == CREATION.webhook_urls
        (entry,) = await jobs.store.timeline("j1")
        assert (entry.type, entry.sequence) == ("job.started", 1)
        assert orjson.loads(entry.body)["data"]["status_url"] == "/jobs/j1"
        rows = await jobs.store._database.fetch("SELECT event_id FROM message", {})
        assert [row["event_id"] for row in rows] == [entry.event_id]

    async def test_prepares_the_job_s_webhooks_before_its_first_event(
        self, jobs: Jobs, subscriber: Subscriber
    ) -> None:
        job = await jobs.tracker.created(queued(), CREATION)
        assert jobs.prepared == [job]
        assert len(subscriber.told) == 1

    async def test_version_in_memory_is_the_stored_one(self, jobs: Jobs) -> None:
        """Else the first change would always be refused, and made twice."""
        await jobs.tracker.created(queued(), CREATION)
        active = jobs.tracker.active("j1")
        assert active is not None
        assert active.version == (await stored(jobs)).version
        await jobs.tracker.observe(seen(1, stage="a"), "poll")
        assert jobs.store.refused == 0

    async def test_seen_twice_is_one_job(self, jobs: Jobs) -> None:
        first, second = await asyncio.gather(
            jobs.tracker.created(queued(), CREATION),
            jobs.tracker.created(queued(), Creation("bob")),
        )
        assert first.incarnation == second.incarnation
        assert second.owner == "alice"
        assert jobs.recorder.types() == [STARTED]

    async def test_that_already_ended_has_both_events(self, jobs: Jobs) -> None:
        await jobs.tracker.created(seen(state=State.COMPLETED), CREATION)
        assert jobs.recorder.types() == [STARTED, COMPLETED]
        assert jobs.tracker.active("j1") is None

    async def test_counts_retries_of_its_subject(self, jobs: Jobs) -> None:
        for number in range(3):
            jobs.tracker._intake._now.advance(1)  # type: ignore[attr-defined]
            observation = Observation(f"j{number}", NOW, state=State.QUEUED, subject="v1")
            job = await jobs.tracker.created(observation, CREATION)
            assert job.retry_count == number
            failure = Observation(job.id, NOW + 1, state=State.FAILED, error={"is_retryable": True})
            await jobs.tracker.observe(failure, "poll")


class TestStoreAway:
    @pytest.fixture(autouse=True)
    def _fast(self, no_waiting: None) -> None: ...

    async def test_creation_is_answered_and_recorded_once_the_store_is_back(
        self, jobs: Jobs
    ) -> None:
        jobs.store.down = True
        job = await jobs.tracker.created(queued(), CREATION)
        assert (job.id, job.owner) == ("j1", "alice")
        assert jobs.recorder.types() == []
        jobs.store.down = False
        await jobs.recorder.until(lambda change: change.job.id == "j1")
        kept = await stored(jobs)
        assert kept.webhook_urls == CREATION.webhook_urls
        # The same as was answered: whatever was prepared for it then belongs to it now.
        assert kept.created_at == job.created_at

    async def test_nobody_adopts_a_job_whose_creation_waits_for_the_store(self, jobs: Jobs) -> None:
        jobs.store.down = True
        with jobs.tracker.creating():
            await jobs.tracker.created(queued(), CREATION)
        jobs.store.down = False
        await jobs.tracker.observe(seen(1, stage="a"), "poll")
        await jobs.recorder.until(lambda change: change.job.id == "j1")
        assert (await stored(jobs)).owner == "alice"

    async def test_close_gives_up_a_creation_that_cannot_be_recorded(self, jobs: Jobs) -> None:
        jobs.store.down = True
        await jobs.tracker.created(queued(), CREATION)
        await jobs.tracker.close()
        jobs.store.down = False
        assert await jobs.store.get("j1") is None

    async def test_close_records_a_creation_at_the_last_moment(
        self, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(birth_module, "_RECORD_RETRY_SECONDS", 3600.0)
        jobs.store.down = True
        await jobs.tracker.created(queued(), CREATION)
        jobs.store.down = False
        await jobs.tracker.close()
        assert (await stored(jobs)).owner == "alice"

    async def test_observation_raises_and_counts_when_it_is_made_again(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        jobs.store.down = True
        with pytest.raises(StoreUnavailable):
            await jobs.tracker.observe(seen(1, stage="a"), "poll")
        jobs.store.down = False
        job = await jobs.tracker.observe(seen(1, stage="a"), "poll")
        assert job is not None
        assert jobs.recorder.sequences() == [1, 2, 3]

    async def test_offered_observation_is_dropped_and_counted(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        jobs.store.down = True
        jobs.tracker.offer(seen(1, stage="a"), "client")
        await jobs.tracker.close()
        assert jobs.metrics.store_errors_total.labels("jobs")._value.get() == 1
        assert jobs.recorder.types() == [STARTED]


class TestObservation:
    async def test_changes_are_committed_in_order(self, jobs: Jobs, subscriber: Subscriber) -> None:
        await jobs.tracker.created(queued(), CREATION)
        await jobs.tracker.observe(seen(1, stage="a", percentage=10), "poll")
        await jobs.tracker.observe(seen(2, percentage=50), "poll")
        await jobs.tracker.observe(seen(3, State.FAILED, error={"error_type": "x"}), "poll")
        timeline = await jobs.store.timeline("j1")
        assert [(entry.sequence, entry.type) for entry in timeline] == [
            (1, "job.started"),
            (2, "job.stage_changed"),
            (3, "job.progress"),
            (4, "job.progress"),
            (5, "job.failed"),
        ]
        assert [document["sequence"] for document in subscriber.told] == [1, 2, 3, 4, 5]
        assert (await stored(jobs)).state is State.FAILED
        assert jobs.tracker.active("j1") is None

    async def test_concurrent_ones_make_one_true_history(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        observations = [
            *(seen(at, stage="ab"[at % 2], percentage=at) for at in range(1, 40)),
            seen(40, State.FAILED, error={"error_type": "x"}),
            seen(41, State.CANCELLED),
            seen(42, stage="c"),
        ]
        await asyncio.gather(
            *(jobs.tracker.observe(each, "poll") for each in reversed(observations))
        )
        types, sequences = jobs.recorder.types(), jobs.recorder.sequences()
        assert sequences == list(range(1, len(sequences) + 1))
        assert [kind for kind in types if kind.terminal] == [types[-1]]
        timeline = await jobs.store.timeline("j1")
        assert [entry.type for entry in timeline] == [kind.value for kind in types]

    async def test_all_interleave_with_offers(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        observing = [
            asyncio.ensure_future(jobs.tracker.observe(seen(at, percentage=at), "poll"))
            for at in range(1, 30, 2)
        ]
        for at in range(2, 30, 2):
            jobs.tracker.offer(seen(at, percentage=at), "client")
        await asyncio.gather(*observing)
        await jobs.tracker.close()
        sequences = jobs.recorder.sequences()
        assert sequences == list(range(1, len(sequences) + 1))
        active = jobs.tracker.active("j1")
        assert active is not None
        assert active.percentage == 29

    async def test_somebody_faster_is_read_again(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        before = await stored(jobs)

        async def rival() -> None:
            """Another process of the same store saw the job at 60 %."""
            change = advance(before, seen(1, stage="a", percentage=60), NOW + 1, WatchRule())
            assert change is not None
            await jobs.store.record(change, [], [])

        jobs.store.rival = rival
        job = await jobs.tracker.observe(seen(2, stage="b", percentage=70), "poll")
        assert job is not None
        assert jobs.store.refused == 1
        assert (job.stage, job.percentage, job.sequence) == ("b", 70, 5)
        assert (await stored(jobs)).version == before.version + 2

    async def test_somebody_faster_who_ended_it_leaves_nothing_to_say(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        before = await stored(jobs)

        async def rival() -> None:
            change = advance(before, seen(1, State.CANCELLED), NOW + 1, WatchRule())
            assert change is not None
            await jobs.store.record(change, [], [])

        jobs.store.rival = rival
        job = await jobs.tracker.observe(seen(2, State.FAILED, error={"error_type": "x"}), "poll")
        assert job is not None
        assert job.state is State.CANCELLED
        assert jobs.recorder.types() == [STARTED]
        assert jobs.tracker.active("j1") is None

    async def test_heralds_hear_of_a_change_before_anybody_can_read_of_it(self, jobs: Jobs) -> None:
        await jobs.create()
        read: list[tuple[State, State]] = []

        async def herald(change: JobChange) -> None:
            read.append((change.job.state, (await stored(jobs)).state))

        jobs.tracker.heralds.append(herald)
        await jobs.tracker.observe(seen(1, State.COMPLETED), "poll")

        assert read == [(State.COMPLETED, State.QUEUED)]

    async def test_whoever_is_cancelled_in_the_middle_of_it_tells_of_it_all_the_same(
        self, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await jobs.create()
        record, committed, tell = jobs.store.record, asyncio.Event(), asyncio.Event()

        async def held_up(*args: Any) -> bool:
            done = await record(*args)
            committed.set()
            await tell.wait()
            return done

        monkeypatch.setattr(jobs.store, "record", held_up)
        observing = asyncio.create_task(jobs.tracker.observe(seen(1, State.COMPLETED), "poll"))
        await committed.wait()
        observing.cancel()
        tell.set()
        with pytest.raises(asyncio.CancelledError):
            await observing

        assert jobs.recorder.types() == [STARTED, COMPLETED]
        assert jobs.tracker.active("j1") is None

    async def test_late_one_of_an_ended_job_is_stale(self, jobs: Jobs) -> None:
        await jobs.tracker.created(seen(state=State.FAILED), CREATION)
        job = await jobs.tracker.observe(seen(9, stage="a"), "poll")
        assert job is not None
        assert job.state is State.FAILED
        assert jobs.count("poll", "stale") == 1

    async def test_nothing_new_is_not_written(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(stage="a", percentage=5), CREATION)
        await jobs.tracker.observe(queued(stage="a", percentage=5.5), "poll")
        assert len(jobs.store.recorded) == 1
        assert jobs.count("poll", "unchanged") == 1
        active = jobs.tracker.active("j1")
        assert active is not None
        assert active.percentage == 5.5

    async def test_state_that_rises_without_an_event_survives_a_restart(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        await jobs.tracker.observe(seen(1), "poll")
        kept = await stored(jobs)
        assert (kept.state, kept.sequence) == (State.RUNNING, 1)
        assert kept.running_since is not None

    async def test_unfinished_jobs_are_taken_up_at_the_start(
        self, jobs: Jobs, tmp_path: Path
    ) -> None:
        await jobs.tracker.created(queued(), CREATION)
        jobs.tracker._roster._jobs.clear()
        await jobs.tracker.open()
        assert jobs.tracker.active("j1") == await stored(jobs)
        assert jobs.metrics.jobs_active._value.get() == 1

    async def test_unreadable_answer_is_counted_and_the_job_goes_on(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        error = Unreadable("not_json", "half a document")
        jobs.tracker.refuse("poll", error.reason, str(error), "j1")
        assert jobs.refusals("not_json") == 1
        assert jobs.tracker.active("j1") is not None

    async def test_answer_used_but_for_a_part_is_counted_once(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        await jobs.tracker.observe(seen(1, percentage=100, corrected="percentage"), "poll")
        assert jobs.refusals("percentage") == 1
        jobs.tracker.offer(seen(2, stage="b", corrected="percentage"), "client")
        await jobs.tracker.close()
        assert jobs.refusals("percentage") == 2
        assert (await stored(jobs)).stage == "b"

    async def test_time_alone_fails_a_job_that_runs_too_long(
        self, jobs: Jobs, clock: Clock
    ) -> None:
        await jobs.tracker.created(seen(), CREATION)
        clock.advance(3599)
        job = await jobs.tracker.expire("j1")
        assert job is not None
        assert job.state is State.RUNNING
        clock.advance(1)
        job = await jobs.tracker.expire("j1")
        assert job is not None
        assert job.error is not None
        assert job.error["error_type"] == "processing_timeout"
        assert jobs.recorder.types() == [STARTED, FAILED]
        assert await jobs.tracker.expire("nobody") is None

    async def test_ends_are_counted(self, jobs: Jobs) -> None:
        ends = [State.COMPLETED, State.FAILED, State.CANCELLED]
        for number, state in enumerate(ends):
            await jobs.tracker.created(
                Observation(f"j{number}", NOW, state=State.RUNNING), CREATION
            )
            end = Observation(f"j{number}", NOW + 1, state=state, error={"error_type": "job_lost"})
            await jobs.tracker.observe(end, "poll")
        metrics = jobs.metrics
        assert metrics.jobs_created_total._value.get() == 3
        assert metrics.jobs_completed_total._value.get() == 1
        assert metrics.jobs_failed_total.labels("job_lost")._value.get() == 1
        assert metrics.jobs_cancelled_total._value.get() == 1
        assert metrics.jobs_active._value.get() == 0
        assert metrics.job_processing_seconds._sum.get() == 0


class TestDetails:
    """Statuses carry no results: a job that ends is asked for its details once."""

    async def test_completed_job_takes_its_results_from_the_details(
        self, jobs: Jobs, upstream: ScriptedUpstream, subscriber: Subscriber
    ) -> None:
        upstream.details["j1"] = {"id": "j1", "status": "completed", "results": {"n": 3}}
        await jobs.tracker.created(queued(), CREATION)
        await jobs.tracker.observe(seen(1, State.COMPLETED), "poll")
        assert upstream.asked["/jobs/j1/details"] == 1
        assert (await stored(jobs)).results == {"n": 3}
        assert subscriber.told[-1]["data"]["results"] == {"n": 3}

    async def test_results_seen_in_a_stream_win(
        self, jobs: Jobs, upstream: ScriptedUpstream
    ) -> None:
        upstream.details["j1"] = {"id": "j1", "status": "completed", "results": {"n": 3}}
        await jobs.tracker.created(queued(), CREATION)
        await jobs.tracker.observe(seen(1, State.COMPLETED, results={"n": 4}), "stream")
        assert upstream.asked["/jobs/j1/details"] == 0
        assert (await stored(jobs)).results == {"n": 4}

    async def test_failed_job_whose_error_was_not_shown_is_asked_for_it(
        self, jobs: Jobs, upstream: ScriptedUpstream, subscriber: Subscriber
    ) -> None:
        """The list of jobs shows that one failed, not why."""
        upstream.details["j1"] = {"id": "j1", "status": "failed", "error": {"error_type": "x"}}
        await jobs.tracker.created(queued(), CREATION)
        await jobs.tracker.observe(seen(1, State.FAILED), "list")
        assert upstream.asked["/jobs/j1/details"] == 1
        assert subscriber.told[-1]["data"]["error"] == {"error_type": "x"}

    async def test_failure_that_says_why_is_not_asked_for_more(
        self, jobs: Jobs, upstream: ScriptedUpstream
    ) -> None:
        await jobs.tracker.created(queued(), CREATION)
        await jobs.tracker.observe(seen(1, State.FAILED, error={"error_type": "x"}), "poll")
        assert upstream.asked["/jobs/j1/details"] == 0

    @pytest.mark.parametrize(
        "details",
        [
            None,
            b"<html>",
            {"id": "j1", "status": "running", "results": {"n": 1}},
            {"id": "other", "status": "completed", "results": {"n": 1}},
        ],
    )
    async def test_job_ends_without_results_where_the_details_say_nothing(
        self, jobs: Jobs, upstream: ScriptedUpstream, details: object
    ) -> None:
        upstream.details["j1"] = details
        await jobs.tracker.created(queued(), CREATION)
        await jobs.tracker.observe(seen(1, State.COMPLETED), "poll")
        assert jobs.recorder.types() == [STARTED, COMPLETED]
        assert (await stored(jobs)).results is None


class TestOffer:
    async def test_of_nothing_new_makes_no_task(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(stage="a", percentage=5), CREATION)
        jobs.tracker.offer(queued(stage="a", percentage=5.5), "client")
        assert not jobs.tracker._tasks
        assert jobs.count("client", "unchanged") == 1
        active = jobs.tracker.active("j1")
        assert active is not None
        assert active.percentage == 5.5

    async def test_that_is_stale_makes_no_task(self, jobs: Jobs) -> None:
        await jobs.tracker.created(seen(5), CREATION)
        jobs.tracker.offer(seen(4, stage="old"), "client")
        assert not jobs.tracker._tasks
        assert jobs.count("client", "stale") == 1

    async def test_that_changes_something_is_committed(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        jobs.tracker.offer(seen(1, stage="a"), "client")
        await jobs.tracker.close()
        assert (await stored(jobs)).stage == "a"

    async def test_while_the_job_is_being_changed_waits_its_turn(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        changing = asyncio.ensure_future(jobs.tracker.observe(seen(1, percentage=9), "poll"))
        await asyncio.sleep(0)
        jobs.tracker.offer(seen(2, percentage=9.5), "client")
        await changing
        await jobs.tracker.close()
        active = jobs.tracker.active("j1")
        assert active is not None
        assert active.percentage == 9.5


class TestAdoption:
    async def test_running_stranger_is_adopted(self, jobs: Jobs) -> None:
        jobs.tracker.offer(seen(1, stage="a", percentage=30), "client")
        await jobs.tracker.close()
        job = await stored(jobs)
        assert (job.owner, job.stage) == (UNKNOWN_OWNER, "a")
        assert jobs.recorder.types() == [STARTED]

    @pytest.mark.parametrize(
        "observation",
        [
            seen(1, State.COMPLETED),
            seen(1, State.FAILED),
            Observation("j1", NOW, found=False),
        ],
    )
    async def test_stranger_that_ended_or_is_not_there_is_none(
        self, jobs: Jobs, observation: Observation
    ) -> None:
        jobs.tracker.offer(observation, "client")
        await jobs.tracker.close()
        assert await jobs.tracker.observe(observation, "list") is None
        assert await jobs.store.get("j1") is None

    async def test_stranger_is_left_alone_where_policy_says_so(
        self, tmp_path: Path, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        async with assembled(
            tmp_path / "other.db",
            "http://127.0.0.1:9",
            upstream,
            clock=clock,
            watch={"adopt": False},
        ) as jobs:
            jobs.tracker.offer(seen(1), "client")
            assert not jobs.tracker._tasks
            assert await jobs.tracker.observe(seen(1), "list") is None
            assert await jobs.store.get("j1") is None

    async def test_nobody_is_adopted_while_a_creation_is_under_way(self, jobs: Jobs) -> None:
        """A list of jobs can show a job before its creator has been answered."""
        with jobs.tracker.creating():
            assert await jobs.tracker.observe(seen(1), "list") is None
            await jobs.tracker.created(queued(), CREATION)
        assert (await stored(jobs)).owner == "alice"
        assert await jobs.tracker.observe(seen(2), "list") is not None

    async def test_two_sights_of_a_stranger_are_one_job(self, jobs: Jobs) -> None:
        await asyncio.gather(
            jobs.tracker.observe(seen(1, stage="a"), "list"),
            jobs.tracker.observe(seen(2, stage="b"), "poll"),
        )
        assert jobs.recorder.types() == [STARTED, EventType.STAGE_CHANGED, PROGRESS]

    async def test_known_job_of_the_store_is_not_a_stranger(self, jobs: Jobs) -> None:
        await jobs.tracker.created(queued(), CREATION)
        jobs.tracker._roster._jobs.clear()
        jobs.tracker.offer(seen(1, stage="a"), "client")
        await jobs.tracker.close()
        assert (await stored(jobs)).owner == "alice"
