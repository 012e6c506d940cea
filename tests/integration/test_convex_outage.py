"""Convex away for an hour: nobody else notices, little waits, and afterwards it has the truth."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path

import psutil
import pytest

from gateway.core.job import State
from gateway.core.outbox import DeliveryStatus
from gateway.delivery.subscription import CALLS_PER_CHANGE
from tests.support.convex import ConvexServer, require_server
from tests.support.convex_world import opened
from tests.support.receiver import Receiver
from tests.support.system import FAILING_VIDEO, VIDEO, AnalysisApi, GatewayProcess, eventually

START = 1_767_225_600.0
ENDS = (State.COMPLETED, State.FAILED, State.CANCELLED, State.RUNNING)
JOBS, ROUNDS = 12, 60
TABLES = ("videos", "jobs", "jobAnalytics", "webhookConfigs")
ROUND_SECONDS = 60.0  # so that all rounds make an hour


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def away() -> ConvexServer:
    """A deployment that is away: it has chosen its port, and is gone."""
    require_server()
    server = ConvexServer()
    with server:
        pass
    return server


async def test_hour_of_events_waits_as_one_update_a_job_and_ends_as_the_truth(
    away: ConvexServer, tmp_path: Path
) -> None:
    clock = Clock()
    async with opened(away, tmp_path, now=clock, retry_delays=(0.5, 1, 2, 5, 10, 30, 60)) as world:
        jobs = [await world.create(f"j{number}") for number in range(JOBS)]
        waiting, memory = [], []
        tracemalloc.start()
        for turn in range(ROUNDS):
            clock.at += ROUND_SECONDS
            for at, job in enumerate(jobs):
                jobs[at] = await world.observe(job, percentage=float(turn))
            (line,) = await world.outbox.backlog()
            waiting.append(line.waiting + line.in_flight)
            assert world.dispatcher.in_flight <= 16
            memory.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        for at, job in enumerate(jobs):
            if (end := ENDS[at % len(ENDS)]) is not State.RUNNING:
                jobs[at] = await world.observe(job, end)
        # One update a job, another in flight that it will replace, and what a job's end adds.
        assert max(waiting) <= 2 * JOBS
        assert max(memory[-20:]) - max(memory[:20]) < 500_000
        (line,) = await world.outbox.backlog()
        assert line.waiting + line.in_flight <= CALLS_PER_CHANGE * JOBS
        with away:
            clock.at += 3600.0
            world.dispatcher.wake()
            deliveries = await world.settled()
            rows = {row["jobId"]: row for row in await away.dump("jobs")}
            ended = {row["jobId"]: row["status"] for row in await away.dump("jobAnalytics")}
            received = (await away.stats())["paths"]["jobs:updateProgress"]["received"]

    expected = {job.id: (job.state.value, job.sequence, job.percentage) for job in jobs}
    told = {
        name: (row["status"], row["sequence"], row["progressPercentage"])
        for name, row in rows.items()
    }
    assert told == expected
    assert ended == {job.id: job.state.value for job in jobs if job.state.terminal}
    # 720 events became about one call a job.
    assert received <= 2 * JOBS
    kinds = {each.message.status for each in deliveries}
    assert kinds == {DeliveryStatus.SUPERSEDED, DeliveryStatus.SUCCEEDED}


async def test_gateway_killed_while_convex_is_away_loses_no_end_of_a_job(
    away: ConvexServer, tmp_path: Path
) -> None:
    settings = {
        "convex": {"url": away.url, "retry_delays": ["100ms", "200ms", "500ms"]},
        "environment": {"GATEWAY__CONVEX__DEPLOY_KEY": away.deploy_key},
    }
    async with (
        AnalysisApi(speed=20) as api,
        Receiver() as receiver,
        GatewayProcess(tmp_path, api.url, **settings) as gateway,
    ):
        webhook = await gateway.register(
            f"{receiver.url}?token=hidden", ["job.completed", "job.failed"]
        )
        before = psutil.Process(gateway.pid).memory_info().rss
        first = [await gateway.create(url) for url in (VIDEO, FAILING_VIDEO) * 4]
        await receiver.wait_for(3)
        await gateway.kill()  # some have ended, some are running
        await gateway.start()
        second = [await gateway.create() for _ in range(4)]
        timelines = {job: await gateway.finish(job) for job in first + second}
        grown = psutil.Process(gateway.pid).memory_info().rss - before
        # Clients and webhooks did not notice.
        await receiver.wait_until(lambda: len({r.id for r in receiver.requests}) == 12)
        statuses = [(await gateway.status(job))["status"] for job in second]
        with away:

            async def in_step() -> bool:
                rows = {row["jobId"]: row for row in await away.dump("jobs")}
                analytics = {row["jobId"] for row in await away.dump("jobAnalytics")}
                return analytics == timelines.keys() and all(
                    rows.get(job, {}).get("sequence") == timeline[-1]["sequence"]
                    for job, timeline in timelines.items()
                )

            await eventually("Convex has every job's last event", in_step)
            rows = {row["jobId"]: row["status"] for row in await away.dump("jobs")}
            everything = str([await away.dump(table) for table in TABLES])
        log = gateway.log
    ends = {job: timeline[-1]["data"]["status"] for job, timeline in timelines.items()}
    assert rows == ends
    assert set(ends.values()) == {"completed", "failed"}
    assert statuses == ["Completed"] * 4
    assert grown < 64 * 1024**2
    assert away.deploy_key not in log
    # The webhook is there, what signs its deliveries and what its receiver knows it by is not.
    assert webhook["id"] in everything
    assert webhook["secret"] not in everything + log
    assert "hidden" not in everything


async def test_hundred_jobs_catch_up_with_at_most_sixteen_calls_at_once(
    away: ConvexServer, tmp_path: Path
) -> None:
    async with opened(away, tmp_path) as world:
        for number in range(100):
            job = await world.create(f"j{number}")
            await world.observe(job, State.COMPLETED)
        with away:
            # Slow enough for calls to overlap.
            await away.fault("delay", seconds=0.05, count=1000)
            world.dispatcher.wake()
            async with asyncio.timeout(20):
                await world.settled()
            stats = await away.stats()
            rows = await away.dump("jobs")
    assert [row["status"] for row in rows] == ["completed"] * 100
    # The server counts this test's own questions too.
    assert 12 <= stats["peakOpen"] <= 16 + 1
