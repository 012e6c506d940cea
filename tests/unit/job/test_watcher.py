"""Unfinished jobs are watched until they end, whatever the upstream does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.core.job import EventType, Observation, State
from gateway.job import observer as observer_module
from gateway.job import watcher as watcher_module
from gateway.job.birth import UNKNOWN_OWNER
from tests.support.job import (
    BRISK,
    INSTANCE,
    NOW,
    Clock,
    Jobs,
    ScriptedUpstream,
    assembled,
    serving,
)

STARTED, STAGE, PROGRESS = EventType.STARTED, EventType.STAGE_CHANGED, EventType.PROGRESS
COMPLETED, FAILED = EventType.COMPLETED, EventType.FAILED
STATUS, STREAM = "/jobs/j1", "/jobs/j1/stream"

Setup = Callable[..., AbstractAsyncContextManager[Jobs]]


@pytest.fixture
def clock() -> Clock:
    return Clock(runs=True)


@pytest.fixture
def upstream() -> ScriptedUpstream:
    return ScriptedUpstream()


@pytest.fixture
def setup(tmp_path: Path, upstream: ScriptedUpstream, clock: Clock) -> Setup:
    """Jobs over an upstream that answers, with settings of `jobs.watch` as given."""

    @asynccontextmanager
    async def make(**watch: Any) -> AsyncIterator[Jobs]:
        async with (
            serving(upstream) as url,
            assembled(
                tmp_path / "jobs.db", url, upstream, clock=clock, watch={**BRISK, **watch}
            ) as jobs,
        ):
            yield jobs

    return make


def status(word: str, percentage: float | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "j1", "status": word, "stage": word, "percentage": percentage, **fields}


def event(name: str, **fields: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), web.json_response(fields).body)


async def eventually(holds: Callable[[], bool]) -> None:
    """Let everything else go on until it holds; the test's own time-out ends a wait in vain."""
    while not holds():  # noqa: ASYNC110 - of some things nothing tells
        await asyncio.sleep(0.001)


class TestPolling:
    async def test_job_is_polled_until_it_completes(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.status["j1"] = status("queued")
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.create(stage="queued")
            upstream.status["j1"] = status("working", 10)
            await jobs.recorder.until(lambda change: change.job.percentage == 10)
            upstream.details["j1"] = status("completed", 100, results={"n": 1})
            upstream.status["j1"] = status("completed", 100)
            job = await jobs.recorder.ended()
            assert job.results == {"n": 1}
            assert jobs.recorder.types() == [STARTED, STAGE, PROGRESS, COMPLETED]
            assert upstream.asked[STREAM] == 0
            await eventually(lambda: not jobs.watcher._watches)
            assert await jobs.store.claim_due(None, 9, NOW + 9e9, 30) == []

    async def test_poll_carries_the_creation_s_request_id(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.status["j1"] = status("failed", error="boom")
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.create()
            await jobs.recorder.ended()
        assert {"X-Request-ID": "r1"}.items() <= upstream.headers[-1].items()

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (b"<html>oops</html>", "not_json"),
            (b'{"id": "j1", "stat', "not_json"),
            ([1], "not_object"),
            ({"id": "j1"}, "no_state"),
            ({"id": "j2", "status": "working"}, "other_job"),
        ],
    )
    async def test_unreadable_answer_is_counted_and_the_job_still_followed(
        self, setup: Setup, upstream: ScriptedUpstream, answer: object, reason: str
    ) -> None:
        upstream.status["j1"] = answer
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: jobs.refusals(reason) > 1)
            upstream.status["j1"] = status("failed", error="boom")
            await jobs.recorder.ended()

    async def test_error_status_is_counted_and_says_nothing_of_the_job(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.status["j1"] = status("failed", error="boom")
        upstream.code = 500
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: jobs.refusals("status") > 1)
            assert jobs.recorder.types() == [STARTED]
            upstream.code = 200
            await jobs.recorder.ended()

    async def test_figures_that_cannot_be_are_clamped_or_ignored(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.status["j1"] = b'{"id": "j1", "status": "working", "percentage": NaN}'
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.create()
            change = await jobs.recorder.until(lambda c: c.job.state is State.RUNNING)
            assert change.job.percentage is None
            upstream.status["j1"] = status("working", 250)
            change = await jobs.recorder.until(lambda c: c.job.percentage is not None)
            assert change.job.percentage == 100


class TestStream:
    async def test_stream_is_followed_to_the_end(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        async def script(_: web.Request, response: web.StreamResponse) -> None:
            await response.write(event("connected", id="j1", message="hello"))
            await response.write(event("progress", **status("working", 20)))
            await response.write(event("progress", **status("working", 20.5)))
            await response.write(event("completed", **status("completed", 100, results={"n": 1})))
            await response.write(event("stream_ended", id="j1"))

        upstream.streams["j1"] = script
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            job = await jobs.recorder.ended()
        assert job.results == {"n": 1}
        assert jobs.recorder.types() == [STARTED, STAGE, PROGRESS, COMPLETED]
        assert upstream.asked[STREAM] == 1
        assert upstream.asked[STATUS] == 0
        assert upstream.asked[f"{STATUS}/details"] == 0
        assert jobs.refusals("no_state") == 0

    async def test_stream_that_breaks_is_taken_up_again(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        async def script(request: web.Request, response: web.StreamResponse) -> None:
            number = upstream.asked[STREAM]
            if number > 5:
                await response.write(event("failed", **status("failed", error="boom")))
                return
            await response.write(event("progress", **status("working", number * 10)))
            assert request.transport is not None
            request.transport.abort()

        upstream.streams["j1"] = script
        upstream.status["j1"] = status("working")
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await jobs.recorder.ended()
        assert jobs.recorder.sequences() == list(range(1, len(jobs.recorder.sequences()) + 1))
        assert upstream.asked[STREAM] == 6

    @pytest.mark.parametrize("script", ["error_event", "greeting", "garbage", "nothing"])
    async def test_after_three_useless_streams_the_job_is_polled(
        self, setup: Setup, upstream: ScriptedUpstream, script: str
    ) -> None:
        said = {
            "error_event": event("error", id="j1", status="failed", message="no such job"),
            "greeting": event("connected", id="j1"),
            "garbage": b"<html>\n\n\ndata: {half\n\n",
            "nothing": b"",
        }[script]

        async def useless(_: web.Request, response: web.StreamResponse) -> None:
            await response.write(said)

        upstream.streams["j1"] = useless
        upstream.status["j1"] = status("working", 10)
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] > 5)
            upstream.status["j1"] = status("failed", error="boom")
            await jobs.recorder.ended()
        assert upstream.asked[STREAM] == 3

    async def test_upstream_without_the_stream_route_is_polled(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.status["j1"] = status("working", 10)
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] > 5)
            upstream.status["j1"] = status("failed", error="boom")
            await jobs.recorder.ended()
        assert upstream.asked[STREAM] == 3

    async def test_silent_stream_is_polled_beside(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        left = asyncio.Event()

        async def silent(_: web.Request, response: web.StreamResponse) -> None:
            await response.write(event("progress", **status("working", 10)))
            await left.wait()

        upstream.streams["j1"] = silent
        upstream.status["j1"] = status("working", 10)
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] > 2)
            upstream.status["j1"] = status("failed", error="boom")
            await jobs.recorder.ended()
            left.set()
        assert upstream.asked[STREAM] == 1

    async def test_stream_of_heartbeats_alone_is_polled_beside(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        """A stream that says something all the time, but never of the job."""
        ended = asyncio.Event()

        async def beat(_: web.Request, response: web.StreamResponse) -> None:
            while not ended.is_set():
                await response.write(event("heartbeat", id="j1"))
                await asyncio.sleep(0.001)

        upstream.streams["j1"] = beat
        upstream.status["j1"] = status("working", 10)
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] > 2)
            upstream.status["j1"] = status("failed", error="boom")
            await jobs.recorder.ended()
            ended.set()

    async def test_stream_that_never_begins_does_not_keep_the_job_from_being_polled(
        self, setup: Setup, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(observer_module, "_ATTEMPT_SECONDS", 0.05)
        left = asyncio.Event()

        async def block(_: web.Request) -> web.StreamResponse:
            await left.wait()
            return web.Response()

        monkeypatch.setattr(upstream, "_stream", block)
        upstream.status["j1"] = status("working", 10)
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] > 5)
            upstream.status["j1"] = status("failed", error="boom")
            await jobs.recorder.ended()
            left.set()
        assert upstream.asked[STREAM] == 3

    async def test_more_jobs_than_streams_are_polled(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        left = asyncio.Event()

        async def silent(_: web.Request, response: web.StreamResponse) -> None:
            await response.write(b"\n")
            await left.wait()

        for number in range(3):
            upstream.streams[f"j{number}"] = silent
            upstream.status[f"j{number}"] = {"id": f"j{number}", "status": "working"}
        async with setup(max_streams=1) as jobs, jobs.watching():
            for number in range(3):
                await jobs.create(f"j{number}")
            await eventually(lambda: all(upstream.asked[f"/jobs/j{n}"] > 3 for n in range(3)))
            streams = [path for path in upstream.asked if path.endswith("/stream")]
            assert len(streams) == 1
            left.set()


class TestLostAndLate:
    async def test_lost_job_fails_after_the_grace_period(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        upstream.status["j1"] = status("working", 10)
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.create()
            await jobs.recorder.until(lambda change: change.job.percentage == 10)
            upstream.status.clear()
            await jobs.recorder.until(lambda change: change.job.lost_since is not None)
            asked = upstream.asked[STATUS]
            await eventually(lambda: upstream.asked[STATUS] > asked + 3)
            assert FAILED not in jobs.recorder.types()
            clock.advance(60)
            job = await jobs.recorder.ended()
        assert job.error is not None
        assert job.error["error_type"] == "job_lost"

    async def test_job_that_comes_back_within_the_grace_period_goes_on(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.create()
            await jobs.recorder.until(lambda change: change.job.lost_since is not None)
            upstream.status["j1"] = status("working", 10)
            await jobs.recorder.until(lambda change: change.job.percentage == 10)
            clock.advance(60)
            upstream.status["j1"] = status("completed")
            job = await jobs.recorder.ended()
        assert job.state is State.COMPLETED

    async def test_vanished_job_is_cancelled_where_policy_says_so(
        self, setup: Setup, clock: Clock
    ) -> None:
        async with setup(source="poll", vanished="cancelled") as jobs, jobs.watching():
            await jobs.create()
            await jobs.recorder.until(lambda change: change.job.lost_since is not None)
            clock.advance(60)
            job = await jobs.recorder.ended()
        assert job.state is State.CANCELLED

    async def test_job_whose_stream_denies_it_is_lost_too(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        """The upstream answers 200 with an `error` event for a job that it does not know."""

        async def unknown(_: web.Request, response: web.StreamResponse) -> None:
            await response.write(event("error", message="Job not found"))

        upstream.streams["j1"] = unknown
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await jobs.recorder.until(lambda change: change.job.lost_since is not None)
            clock.advance(60)
            job = await jobs.recorder.ended()
        assert job.error is not None
        assert job.error["error_type"] == "job_lost"

    async def test_job_that_runs_too_long_fails(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        upstream.status["j1"] = status("working", 10)
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.create()
            await jobs.recorder.until(lambda change: change.job.percentage == 10)
            clock.advance(3600)
            job = await jobs.recorder.ended()
        assert job.error is not None
        assert job.error["error_type"] == "processing_timeout"

    async def test_silent_stream_does_not_keep_a_job_from_timing_out(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        left = asyncio.Event()

        async def silent(_: web.Request, response: web.StreamResponse) -> None:
            await response.write(event("progress", **status("working", 10)))
            await left.wait()

        upstream.streams["j1"] = silent
        upstream.status["j1"] = status("working", 10)
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await jobs.recorder.until(lambda change: change.job.percentage == 10)
            clock.advance(3600)
            await jobs.recorder.ended()
            left.set()


class TestUpstreamAway:
    async def test_job_is_followed_again_once_the_upstream_is_back(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        upstream.down = True
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] > 2)
            # An upstream that does not answer has not denied the job.
            clock.advance(120)
            asked = upstream.asked[STATUS]
            await eventually(lambda: upstream.asked[STATUS] > asked + 1)
            assert jobs.recorder.types() == [STARTED]
            upstream.status["j1"] = status("failed", error="boom")
            upstream.down = False
            await jobs.recorder.ended()

    async def test_upstream_that_starts_after_the_gateway_is_reconciled_with_then(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.down = True
        upstream.listed = [status("working", 10)]
        upstream.status["j1"] = status("working", 10)
        async with setup(source="poll") as jobs, jobs.watching():
            await eventually(lambda: upstream.asked["/jobs"] > 1)
            upstream.down = False
            await jobs.recorder.until(lambda change: change.job.id == "j1")

    async def test_upstream_that_is_still_starting_is_asked_for_its_list_again(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.code = 503
        upstream.listed = [status("working", 10)]
        upstream.status["j1"] = status("working", 10)
        async with setup(source="poll") as jobs, jobs.watching():
            await eventually(lambda: upstream.asked["/jobs"] > 1)
            upstream.code = 200
            await jobs.recorder.until(lambda change: change.job.id == "j1")

    async def test_stranger_in_the_list_is_adopted_only_when_no_replica_recorded_it_for_a_while(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.listed = [status("working", 10)]
        upstream.status["j1"] = status("working", 10)
        clock = asyncio.get_running_loop().time
        async with setup(source="poll") as jobs:
            jobs.watcher._reconciliation._adopt_after_seconds = 0.2
            began = clock()
            async with jobs.watching():
                await jobs.recorder.until(lambda change: change.job.id == "j1")
                assert clock() - began >= 0.2


class TestClaims:
    async def test_unfinished_jobs_of_the_store_are_taken_up_at_the_start(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        async with setup(source="poll") as jobs:
            await jobs.create()
            jobs.tracker._roster._jobs.clear()  # as after a restart
            upstream.status["j1"] = status("failed", error="boom")
            await jobs.tracker.open()
            async with jobs.watching():
                await jobs.recorder.ended()

    async def test_watch_ends_when_its_lease_is_lost(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        upstream.status["j1"] = status("working", 10)
        async with setup(source="poll", lease=0.3) as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] > 2)
            # Another replica finds the lease run out, and takes the job for long.
            clock.advance(1)
            (theirs,) = await jobs.store.claim_due(INSTANCE, 1, clock(), 3600)
            await eventually(lambda: not jobs.watcher._watches)
            asked = upstream.asked[STATUS]
            await asyncio.sleep(0.1)  # five pauses between polls
            assert upstream.asked[STATUS] == asked
            assert await jobs.store.renew([theirs], clock() + 3600)

    async def test_claim_made_after_a_lease_ran_out_takes_the_place_of_the_first(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        """As after a pause of the whole process: the job is watched once, not twice."""
        upstream.status["j1"] = status("queued")
        async with setup(source="poll", lease=3600) as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] > 1)
            (first,) = jobs.watcher._watches.values()
            clock.advance(3601)
            jobs.watcher.wake()
            await eventually(lambda: jobs.watcher._watches.get("j1") not in (first, None))
            assert len(jobs.watcher._poller) == 1
            upstream.status["j1"] = status("failed", error="boom")
            await jobs.recorder.ended()

    async def test_stream_of_a_claim_that_was_replaced_is_followed_no_more(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        left = asyncio.Event()

        async def script(_: web.Request, response: web.StreamResponse) -> None:
            await response.write(event("progress", **status("working", 10)))
            await left.wait()

        upstream.streams["j1"] = script
        upstream.status["j1"] = status("working", 10)
        async with setup(lease=3600, timeout=9999) as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STREAM] == 1)
            first = jobs.watcher._watches["j1"].stream
            assert first is not None
            clock.advance(3601)
            jobs.watcher.wake()
            await asyncio.wait({first})
            await eventually(lambda: upstream.asked[STREAM] == 2)
            await eventually(lambda: jobs.watcher._streams == 1)
            left.set()

    async def test_watch_that_fails_is_taken_up_again(
        self,
        setup: Setup,
        upstream: ScriptedUpstream,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        upstream.status["j1"] = status("failed", error="boom")
        async with setup(source="poll") as jobs, jobs.watching():
            observe = jobs.tracker.observe
            failures = iter([True, True])

            async def defective(observation: Observation, source: str) -> object:
                if next(failures, False):
                    raise AttributeError("a defect")
                return await observe(observation, source)

            monkeypatch.setattr(jobs.tracker, "observe", defective)
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] == 1 and not jobs.watcher._watches)
            clock.advance(1)
            jobs.watcher.wake()
            await eventually(lambda: upstream.asked[STATUS] == 2 and not jobs.watcher._watches)
            clock.advance(1)
            jobs.watcher.wake()
            await jobs.recorder.ended()

    async def test_no_more_jobs_are_claimed_than_can_be_watched(
        self, setup: Setup, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watcher_module, "MAX_WATCHED", 1)
        async with setup(source="poll") as jobs:
            for name in ("j1", "j2"):
                upstream.status[name] = {"id": name, "status": "working"}
                await jobs.create(name)
            async with jobs.watching():
                await eventually(lambda: bool(jobs.watcher._watches))
                (watched,) = jobs.watcher._watches
                await jobs.watcher._claim()
                assert list(jobs.watcher._watches) == [watched]
                upstream.status[watched] = {"id": watched, "status": "failed", "error": "x"}
                await jobs.recorder.ended(watched)
                (other,) = {"j1", "j2"} - {watched}
                upstream.status[other] = {"id": other, "status": "failed", "error": "x"}
                await eventually(lambda: not jobs.watcher._watches)
                jobs.watcher.wake()
                await jobs.recorder.ended(other)

    async def test_lease_is_renewed_while_the_job_is_watched(
        self, setup: Setup, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upstream.status["j1"] = status("working", 10)
        async with setup(source="poll", lease=0.03) as jobs:
            until: list[float] = []
            renew = jobs.store.renew

            async def counted(claims: Any, lease_until: float) -> Any:
                kept = await renew(claims, lease_until)
                if kept:
                    until.append(lease_until)
                return kept

            monkeypatch.setattr(jobs.store, "renew", counted)
            async with jobs.watching():
                await jobs.create()
                await eventually(lambda: len(until) > 3)
            assert until == sorted(until)

    async def test_leases_are_kept_though_a_defect_broke_it_off(
        self,
        setup: Setup,
        upstream: ScriptedUpstream,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(watcher_module, "_AGAIN_SECONDS", 0.0)
        upstream.status["j1"] = status("working", 10)
        async with setup(source="poll", lease=0.03) as jobs:
            renew, renewed = jobs.store.renew, 0

            async def defective(claims: Any, lease_until: float) -> Any:
                nonlocal renewed
                renewed += 1
                if renewed == 1:
                    raise AttributeError("a defect")
                return await renew(claims, lease_until)

            monkeypatch.setattr(jobs.store, "renew", defective)
            async with jobs.watching():
                await jobs.create()
                await eventually(lambda: renewed > 3)

    async def test_stopped_watcher_gives_its_jobs_back(
        self, setup: Setup, upstream: ScriptedUpstream, clock: Clock
    ) -> None:
        upstream.status["j1"] = status("working", 10)
        async with setup(source="poll", lease=3600) as jobs:
            async with jobs.watching():
                await jobs.create()
                await eventually(lambda: upstream.asked[STATUS] > 1)
            (claim,) = await jobs.store.claim_due(INSTANCE, 9, clock() + 1, 30)
            assert claim.item.id == "j1"

    @pytest.mark.parametrize("turns", range(6))
    async def test_watcher_stops_even_when_it_is_woken_at_that_moment(
        self, setup: Setup, turns: int
    ) -> None:
        async with setup(source="poll") as jobs:
            task = asyncio.create_task(jobs.watcher.run())
            await eventually(lambda: jobs.upstream.asked["/jobs"] == 1)
            for _ in range(50):  # reconciled, and asleep again
                await asyncio.sleep(0)
            jobs.watcher.wake()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=5)
            assert done == {task}

    async def test_jobs_of_another_instance_are_left_to_it(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        async with setup(source="poll") as jobs:
            jobs.tracker._roster.instance = "two"
            await jobs.create("theirs")
            jobs.tracker._roster.instance = INSTANCE
            upstream.status["j1"] = status("failed", error="boom")
            async with jobs.watching():
                await jobs.create()
                await jobs.recorder.ended()
            assert upstream.asked["/jobs/theirs"] == 0

    async def test_store_that_is_away_is_asked_again(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.status["j1"] = status("working", 10)
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.create()
            await jobs.recorder.until(lambda change: change.job.percentage == 10)
            jobs.store.down = True
            upstream.status["j1"] = status("failed", error="boom")
            asked, claims = upstream.asked[STATUS], jobs.store.claims_asked
            await eventually(lambda: upstream.asked[STATUS] > asked + 2)
            jobs.watcher.wake()
            await eventually(lambda: jobs.store.claims_asked > claims)
            assert FAILED not in jobs.recorder.types()
            jobs.store.down = False
            await jobs.recorder.ended()
        assert jobs.recorder.types() == [STARTED, STAGE, PROGRESS, FAILED]

    async def test_end_that_the_store_missed_is_seen_again(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        """The stream said it once, the poll after it says it again."""

        async def script(_: web.Request, response: web.StreamResponse) -> None:
            if upstream.asked[STREAM] > 1:
                return
            await response.write(event("progress", **status("working", 10)))
            await jobs.recorder.until(lambda change: change.job.percentage == 10)
            jobs.store.down = True
            upstream.status["j1"] = status("failed", error="boom")
            await response.write(event("failed", **status("failed", error="boom")))

        upstream.streams["j1"] = script
        async with setup() as jobs, jobs.watching():
            await jobs.create()
            await eventually(lambda: upstream.asked[STATUS] > 0)
            jobs.store.down = False
            await jobs.recorder.ended()
        assert jobs.recorder.types() == [STARTED, STAGE, PROGRESS, FAILED]


class TestReconciliation:
    async def test_strangers_of_the_list_are_adopted_and_watched(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.listed = [
            status("working", 10),
            {"id": "j2", "status": "completed"},
            {"id": "j3", "status": "failed"},
            {"nonsense": True},
            "text",
        ]
        upstream.status["j1"] = status("working", 20)
        async with setup(source="poll") as jobs, jobs.watching():
            await jobs.recorder.until(lambda change: change.job.percentage == 20)
            upstream.status["j1"] = status("completed")
            job = await jobs.recorder.ended()
            assert job.owner == UNKNOWN_OWNER
            assert await jobs.store.get("j2") is None
            assert await jobs.store.get("j3") is None
            assert jobs.refusals("no_id") == 1
            assert jobs.refusals("not_object") == 1

    async def test_list_ends_a_job_that_ended_while_nobody_watched(
        self, setup: Setup, upstream: ScriptedUpstream
    ) -> None:
        upstream.listed = [{"id": "j1", "status": "completed"}]
        upstream.details["j1"] = status("completed", results={"n": 1})
        async with setup(source="poll") as jobs:
            observation = Observation("j1", NOW, state=State.RUNNING)
            await jobs.create()
            await jobs.tracker.observe(observation, "poll")
            async with jobs.watching():
                job = await jobs.recorder.ended()
        assert job.results == {"n": 1}

    @pytest.mark.parametrize("listed", [None, {"a": 1}, "text"])
    async def test_list_that_is_none_is_refused_once(
        self, setup: Setup, upstream: ScriptedUpstream, listed: Any
    ) -> None:
        upstream.listed = listed
        upstream.status["j1"] = status("failed", error="boom")
        async with setup(source="poll") as jobs, jobs.watching():
            await eventually(lambda: jobs.refusals("no_items") == 1)
            await jobs.create()
            await jobs.recorder.ended()
            assert upstream.asked["/jobs"] == 1
