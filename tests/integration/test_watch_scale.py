"""A thousand jobs watched over real sockets: all of them, within the bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.job import BRISK, Clock, Jobs, ScriptedUpstream, assembled, serving

JOBS = 1000
BOUND = 800


class Counting(ScriptedUpstream):
    """Notes when each status was asked for; refuses while told to."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[float] = []
        self.refuses = False

    async def _status(self, request: web.Request) -> web.Response:
        self.at.append(asyncio.get_running_loop().time())
        if self.refuses:
            raise web.HTTPTooManyRequests(headers={"Retry-After": "1"})
        return await super()._status(request)

    def busiest(self, seconds: float) -> int:
        """The most requests in any such span."""
        return max(
            sum(begin <= at < begin + seconds for at in self.at[i : i + 2 * BOUND])
            for i, begin in enumerate(self.at)
        )


async def until(holds: Callable[[], bool]) -> None:
    """Let everything else go on until it holds; the test's own time-out ends a wait in vain."""
    while not holds():  # noqa: ASYNC110 - of what is asked nothing tells
        await asyncio.sleep(0.01)


@asynccontextmanager
async def watched(path: Path, upstream: Counting, **watch: Any) -> AsyncIterator[Jobs]:
    """A thousand jobs that run, watched."""
    settings = {**BRISK, "source": "poll", "max_per_second": BOUND, **watch}
    async with (
        serving(upstream) as url,
        assembled(path / "jobs.db", url, upstream, clock=Clock(runs=True), watch=settings) as jobs,
    ):
        for number in range(JOBS):
            name = f"j{number}"
            upstream.status[name] = {"id": name, "status": "working", "percentage": 10}
        await asyncio.gather(*(jobs.create(name) for name in list(upstream.status)))
        async with jobs.watching():
            yield jobs


async def test_a_thousand_jobs_are_each_asked_of_and_no_second_has_more_than_the_bound(
    tmp_path: Path,
) -> None:
    upstream = Counting()
    async with watched(tmp_path, upstream, survey_from=None) as jobs:
        await until(lambda: len(upstream.at) > 1.1 * JOBS)
        assert all(upstream.asked[f"/jobs/{name}"] for name in upstream.status)
        # Where they arrive they may be some milliseconds closer than they were sent.
        assert upstream.busiest(1.0) <= 1.05 * BOUND
        upstream.status["j7"] = {"id": "j7", "status": "failed", "error": "boom"}
        job = await jobs.recorder.ended("j7")
        assert job.error is not None


async def test_list_spares_the_polls_of_those_that_stand_still_and_finds_the_one_that_moves(
    tmp_path: Path,
) -> None:
    upstream = Counting()
    upstream.listed = [{"id": f"j{number}", "status": "working"} for number in range(JOBS)]
    watch = {"poll": {"min": 0.05, "max": 5}, "survey_from": 100}
    async with watched(tmp_path, upstream, **watch) as jobs:
        spared = jobs.metrics.watch_polls_spared_total._value
        await until(lambda: len(upstream.at) >= JOBS and spared.get() >= JOBS)
        began = asyncio.get_running_loop().time()
        upstream.status["j7"] = {"id": "j7", "status": "failed", "error": "boom"}
        upstream.listed[7] = {"id": "j7", "status": "failed"}
        await jobs.recorder.ended("j7")
        assert asyncio.get_running_loop().time() - began < 2.5  # a poll's turn is up to 5 s away


async def test_upstream_that_asks_for_patience_is_left_alone_for_as_long(tmp_path: Path) -> None:
    upstream = Counting()
    async with watched(tmp_path, upstream, survey_from=None) as jobs:
        await until(lambda: len(upstream.at) > 50)
        upstream.refuses = True
        refused = jobs.metrics.watch_backoffs_total.labels("429")._value
        await until(lambda: refused.get() > 0)
        told, began = len(upstream.at), asyncio.get_running_loop().time()
        upstream.refuses = False
        await until(lambda: len(upstream.at) >= told + 40)
        # Those under way when the first was refused came still.
        assert sum(at < began + 0.9 for at in upstream.at[told:]) < 33
        assert upstream.at[-1] >= began + 0.9
