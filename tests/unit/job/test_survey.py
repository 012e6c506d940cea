"""The upstream's list says who has moved; it is asked for while that helps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import pytest

from gateway.core.error import UpstreamTimeout
from gateway.job.survey import Survey
from gateway.settings.job import Watch
from gateway.telemetry.metric import Metrics
from tests.support.skipping import run


class World:
    """An upstream's list, and the jobs that are polled."""

    def __init__(self, count: int = 200, **watch: object) -> None:
        self.shown_as = {f"j{n}": 0 for n in range(count)}
        self.polled = set(self.shown_as)
        self.metrics = Metrics()
        self.settings = Watch.model_validate(watch)
        self.survey = Survey(self, self, self.settings, self.metrics)  # type: ignore[arg-type]
        self.asked: list[float] = []
        self.hastened: list[str] = []
        self.spared: list[str] = []
        self.latency_seconds = 0.0
        self.fails = False

    async def shown(self) -> tuple[Iterator[tuple[str, int]], float]:
        loop = asyncio.get_running_loop()
        self.asked.append(loop.time() - 1000)
        await asyncio.sleep(self.latency_seconds)
        if self.fails:
            raise UpstreamTimeout("It hangs.")
        return iter(list(self.shown_as.items())), self.latency_seconds

    def __len__(self) -> int:
        return len(self.polled)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self.polled

    def hasten(self, job_id: str) -> None:
        self.hastened.append(job_id)

    def spare(self, job_id: str, seconds: float) -> bool:
        assert seconds > self.survey.pause_seconds
        self.spared.append(job_id)
        return True

    async def watched(self, seconds: float) -> None:
        task = asyncio.create_task(self.survey.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_jobs_shown_as_before_are_spared_and_those_that_moved_are_hastened() -> None:
    async def work() -> World:
        world = World(3)
        await world.survey.look()
        assert not world.spared
        assert not world.hastened
        world.shown_as["j1"] = 1
        world.shown_as["new"] = 1
        world.polled.add("new")
        world.polled.remove("j2")
        await world.survey.look()
        return world

    world = run(work())
    assert world.spared == ["j0"]
    assert world.hastened == ["j1"]
    assert world.metrics.watch_polls_spared_total._value.get() == 1


def test_list_is_asked_for_from_as_many_polled_jobs_on_as_settings_say() -> None:
    async def work(world: World) -> int:
        await world.watched(10.5)
        return len(world.asked)

    assert run(work_of(99, work)) == 0
    assert run(work_of(100, work)) == 10


async def work_of(count: int, work: object) -> int:
    result: int = await work(World(count))  # type: ignore[operator]
    return result


def test_list_is_never_asked_for_where_settings_say_so() -> None:
    async def work() -> World:
        world = World(survey_from=None)
        await world.survey.run()
        return world

    assert run(work()).asked == []


@pytest.mark.parametrize("trouble", ["fails", "all move"])
def test_list_that_does_not_help_is_asked_for_more_and_more_seldom(trouble: str) -> None:
    async def work() -> World:
        world = World()
        world.fails = trouble == "fails"
        task = asyncio.create_task(world.watched(600))
        for turn in range(600):
            await asyncio.sleep(1)
            if trouble == "all move":
                world.shown_as = dict.fromkeys(world.shown_as, turn)
        await task
        return world

    world = run(work())
    assert len(world.asked) <= 12
    pauses = [b - a for a, b in pairwise(world.asked)]
    assert max(pauses) == 8 * world.settings.poll.max


def test_list_that_takes_long_is_asked_for_in_a_twentieth_of_the_time() -> None:
    async def work() -> World:
        world = World()
        world.latency_seconds = 0.5
        await world.watched(100)
        return world

    assert 8 <= len(run(work()).asked) <= 11


def test_list_that_helps_again_is_asked_for_as_before() -> None:
    async def work() -> World:
        world = World()
        world.fails = True
        task = asyncio.create_task(world.watched(200))
        await asyncio.sleep(100)
        world.fails = False
        await task
        return world

    assert sum(at > 150 for at in run(work()).asked) > 40
