"""Polled jobs have their turns: within the bound, evenly spread, and nobody's never comes."""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from gateway.core.error import UpstreamTimeout
from gateway.core.job import Job, State
from gateway.core.pace import Pace
from gateway.job.gate import Gate
from gateway.job.poller import Poller
from gateway.settings.job import Watch
from gateway.telemetry.metric import Metrics
from tests.support.job import NOW
from tests.support.skipping import run


def job(job_id: str, **fields: Any) -> Job:
    made = Job(
        id=job_id,
        incarnation="i",
        owner="alice",
        upstream="one",
        state=State.QUEUED,
        created_at=NOW,
        observed_at=NOW - 1000,
        sequence=1,
    )
    return replace(made, **fields)


class World:
    """Jobs in place of a tracker, and an upstream in place of its observer, by the loop's time."""

    def __init__(self, **watch: Any) -> None:
        self.settings = Watch.model_validate({"source": "poll", **watch})
        self.jobs: dict[str, Job] = {}
        self.metrics = Metrics()
        self.loop = asyncio.get_running_loop()
        self.pace = Pace(self.settings.max_per_second)
        self.gate = Gate(self.pace, self.metrics, self.now, self.loop.time)
        self.asked: list[tuple[float, str]] = []
        self.ended: list[str] = []
        self.failed: list[str] = []
        self.taken: set[str] = set()
        self.under_way = self.most_under_way = 0
        self.latency_seconds = 0.01
        self.status = 200
        self.retry_after: str | None = None
        self.hangs = False
        self.defect: str | None = None
        self.poller = Poller(
            tracker=self,  # type: ignore[arg-type]
            inquiry=self,  # type: ignore[arg-type]
            settings=self.settings,
            leaves=self.taken.__contains__,
            ended=self.ended.append,
            failed=lambda job_id, _: self.failed.append(job_id),
            metrics=self.metrics,
            now=self.now,
        )

    def now(self) -> float:
        return NOW + self.loop.time() - 1000.0

    def add(self, *jobs: Job) -> None:
        for each in jobs:
            self.jobs[each.id] = each
            self.poller.add(each.id)

    def active(self, job_id: str) -> Job | None:
        return self.jobs.get(job_id)

    async def alive(self, job_id: str) -> Job | None:
        known = self.jobs.get(job_id)
        since = None if known is None else known.running_since
        if since is not None and self.now() - since >= self.settings.timeout:
            del self.jobs[job_id]
            return None
        return known

    async def poll(self, job_id: str) -> None:
        if job_id == self.defect:
            raise AttributeError("a defect")
        sent_at = await self.gate.enter()
        self.asked.append((self.loop.time() - 1000.0, job_id))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if self.hangs:
                await asyncio.sleep(10)
                self.gate.failed(sent_at, UpstreamTimeout("It hangs."))
                return
            await asyncio.sleep(self.latency_seconds)
        finally:
            self.under_way -= 1
        self.gate.answered(sent_at, self.status, self.retry_after)
        if job_id in self.jobs:
            self.jobs[job_id] = replace(self.jobs[job_id], observed_at=self.now())

    def change(self, job_id: str, **fields: Any) -> None:
        known = self.jobs[job_id]
        self.jobs[job_id] = replace(known, sequence=known.sequence + 1, **fields)

    def times(self, job_id: str) -> list[float]:
        return [at for at, asked in self.asked if asked == job_id]

    def a_second(self, first: int, last: int) -> list[int]:
        """Requests in each of these seconds."""
        count = Counter(int(at) for at, _ in self.asked)
        return [count[second] for second in range(first, last)]


def busiest(times: list[float]) -> int:
    return max(bisect.bisect_left(times, at + 1.0) - i for i, at in enumerate(times))


class TestTurns:
    def test_pause_grows_while_nothing_moves_and_shrinks_when_it_does(self) -> None:
        async def work() -> list[float]:
            world = World(poll={"min": 1, "max": 8})
            world.add(job("j1"))
            await asyncio.sleep(40)
            world.change("j1")
            await asyncio.sleep(12)
            await world.poller.close()
            times = world.times("j1")
            return [later - earlier for earlier, later in pairwise(times)]

        pauses = run(work())
        for pause, planned in zip(pauses, [1.5, 2.25, 3.375, 5.0625, 7.59, 8, 8], strict=False):
            assert 0.5 * planned <= pause <= planned + 0.1
        assert min(pauses[-4:]) <= 1.1

    def test_no_second_has_more_requests_than_the_bound_and_none_stays_idle(self) -> None:
        async def work() -> World:
            world = World(max_per_second=50)
            world.add(*(job(f"j{n}") for n in range(2000)))
            await asyncio.sleep(120)
            await world.poller.close()
            return world

        world = run(work())
        assert busiest([at for at, _ in world.asked]) <= 50
        assert min(world.a_second(1, 119)) >= 45

    def test_nobody_starves_though_others_move_all_the_time(self) -> None:
        """Fifty jobs that move are due every second; the bound is ten."""

        async def work() -> dict[str, list[float]]:
            world = World(max_per_second=10, max_polls=4)
            world.add(*(job(f"j{n}") for n in range(100)))
            for _ in range(100):
                await asyncio.sleep(1)
                for number in range(50):
                    world.change(f"j{number}")
            await world.poller.close()
            by_job = defaultdict(list)
            for at, job_id in world.asked:
                by_job[job_id].append(at)
            return by_job

        by_job = run(work())
        assert len(by_job) == 100
        for times in by_job.values():
            waits = [b - a for a, b in zip([0.0, *times], [*times, 100.0], strict=True)]
            assert max(waits) <= 30  # a round of all takes ten seconds

    def test_jobs_that_began_together_spread_out_evenly(self) -> None:
        async def work() -> World:
            world = World(max_per_second=1000, max_polls=200)
            world.add(*(job(f"j{n}") for n in range(600)))
            await asyncio.sleep(120)
            await world.poller.close()
            return world

        settled = run(work()).a_second(60, 119)
        mean = sum(settled) / len(settled)
        assert 0.95 * 600 / 15 <= mean <= 600 / 7.5
        assert max(settled) <= 1.5 * mean

    def test_no_more_are_under_way_than_may_be(self) -> None:
        async def work() -> int:
            world = World(max_polls=7)
            world.latency_seconds = 2.0
            world.add(*(job(f"j{n}") for n in range(100)))
            await asyncio.sleep(20)
            await world.poller.close()
            return world.most_under_way

        assert run(work()) == 7

    def test_job_that_a_client_just_showed_is_not_asked_of(self) -> None:
        async def work() -> World:
            world = World()
            world.add(job("shown"), job("unseen"))
            for _ in range(300):
                await asyncio.sleep(0.2)
                world.jobs["shown"] = replace(world.jobs["shown"], observed_at=world.now())
            await world.poller.close()
            return world

        world = run(work())
        assert len(world.times("shown")) <= 1
        assert len(world.times("unseen")) >= 5

    def test_lost_job_is_asked_of_again_when_it_is_to_be_given_up(self) -> None:
        async def work() -> World:
            world = World(lost_after=3)
            world.add(job("j1"))
            await asyncio.sleep(30.1)
            world.change("j1", lost_since=world.now())
            await asyncio.sleep(30)
            await world.poller.close()
            return world

        world = run(work())
        assert any(30.1 + 1 < at <= 30.1 + 15 + 3.2 for at in world.times("j1"))
        after = [at for at in world.times("j1") if at > 30.1]
        assert max(b - a for a, b in pairwise(after)) <= 3.2


class TestEnds:
    def test_job_that_ended_is_told_of_once_and_asked_of_no_more(self) -> None:
        async def work() -> World:
            world = World()
            world.add(job("j1"), job("j2"))
            await asyncio.sleep(5)
            del world.jobs["j1"]
            await asyncio.sleep(60)
            assert list(filter(world.poller.__contains__, ("j1", "j2"))) == ["j2"]
            await world.poller.close()
            return world

        world = run(work())
        assert world.ended == ["j1"]
        assert max(world.times("j1")) <= 5.1

    def test_job_that_runs_too_long_ends_though_the_upstream_asks_for_patience(self) -> None:
        async def work() -> World:
            world = World(timeout=30, max_polls=2)
            world.status, world.retry_after = 503, "60"
            world.add(*(job(f"j{n}", running_since=NOW) for n in range(10)))
            await asyncio.sleep(31.5)
            await world.poller.close()
            return world

        world = run(work())
        assert sorted(world.ended) == sorted(f"j{n}" for n in range(10))
        assert len(world.asked) <= 2

    def test_job_that_is_taken_away_before_its_turn_is_not_asked_of(self) -> None:
        async def work() -> World:
            world = World()
            world.taken.add("j1")
            world.add(job("j1"), job("j2"))
            await asyncio.sleep(5)
            assert "j1" not in world.poller
            world.taken.clear()
            world.poller.drop("j2")
            await asyncio.sleep(30)
            return world

        world = run(work())
        assert not world.times("j1")
        assert max(world.times("j2")) < 5
        assert not world.ended

    def test_defect_in_one_turn_leaves_the_others_their_turns(self) -> None:
        async def work() -> World:
            world = World(max_polls=1)
            world.defect = "j1"
            world.add(job("j1"), job("j2"))
            await asyncio.sleep(30)
            await world.poller.close()
            return world

        world = run(work())
        assert world.failed == ["j1"]
        assert len(world.times("j2")) > 3


class TestSuffering:
    @pytest.mark.parametrize("how", ["429", "503", "hangs", "slow"])
    def test_pace_falls_with_the_upstream_and_comes_back_with_it(self, how: str) -> None:
        async def work() -> World:
            world = World(max_per_second=100, max_polls=200)
            world.add(*(job(f"j{n}") for n in range(3000)))
            await asyncio.sleep(20)
            world.hangs = how == "hangs"
            world.latency_seconds = 1.0 if how == "slow" else 0.01
            world.status = int(how) if how.isdecimal() else 200
            await asyncio.sleep(40)
            world.hangs, world.status, world.latency_seconds = False, 200, 0.01
            await asyncio.sleep(40)
            await world.poller.close()
            return world

        world = run(work())
        assert min(world.a_second(5, 20)) >= 90
        assert max(world.a_second(45, 60)) <= 25
        assert min(world.a_second(85, 99)) >= 90

    def test_retry_after_is_kept_to(self) -> None:
        async def work() -> World:
            world = World(max_per_second=100)
            world.add(*(job(f"j{n}") for n in range(3000)))
            await asyncio.sleep(5)
            world.status, world.retry_after = 429, "20"
            await asyncio.sleep(1)
            world.status = 200
            await asyncio.sleep(30)
            await world.poller.close()
            return world

        world = run(work())
        assert sum(world.a_second(6, 25)) == 0
        assert sum(world.a_second(26, 30)) > 0
        assert world.metrics.watch_backoffs_total.labels("429")._value.get() >= 1


class TestSurveyed:
    def test_spared_job_has_its_turn_later_but_not_for_ever(self) -> None:
        async def work() -> World:
            world = World()
            world.add(job("j1"), job("j2"))
            for _ in range(400):
                await asyncio.sleep(1)
                world.poller.spare("j1", 20)
            await world.poller.close()
            return world

        world = run(work())
        assert len(world.times("j2")) > 25
        times = world.times("j1")
        assert 2 <= len(times) <= 12
        assert max(b - a for a, b in pairwise(times)) <= 200

    def test_job_that_moved_is_asked_of_at_once(self) -> None:
        async def work() -> World:
            world = World()
            world.add(job("j1"))
            await asyncio.sleep(100)
            world.poller.hasten("j1")
            await asyncio.sleep(0.2)
            await world.poller.close()
            return world

        assert 100 <= run(work()).times("j1")[-1] <= 100.1

    def test_hastened_again_and_again_a_job_keeps_its_place(self) -> None:
        """What is due already is not put behind those that came to be due since."""

        async def work() -> World:
            world = World(max_per_second=5)
            world.add(*(job(f"j{n}") for n in range(100)))
            for _ in range(400):
                await asyncio.sleep(0.1)
                world.poller.hasten("j99")
            await world.poller.close()
            return world

        assert run(work()).times("j99")

    def test_lost_job_is_not_spared(self) -> None:
        async def work() -> bool:
            world = World()
            world.add(job("j1", lost_since=NOW))
            spared = world.poller.spare("j1", 20)
            await world.poller.close()
            return spared

        assert run(work()) is False
