"""An upstream that says everything twice, in any order, and of jobs that nobody created."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.job import EventType, Observation, State
from gateway.job.birth import UNKNOWN_OWNER
from tests.support.job import NOW, Clock, Jobs, ScriptedUpstream, assembled

# What the upstream really did, and when it said so.
TRUTH = (
    Observation("j1", NOW + 1, state=State.QUEUED, stage="Queued", percentage=0),
    Observation("j1", NOW + 2, state=State.RUNNING, stage="Downloading", percentage=10),
    Observation("j1", NOW + 3, state=State.RUNNING, stage="Downloading", percentage=20),
    Observation("j1", NOW + 4, state=State.RUNNING, stage="Analyzing", percentage=70),
    Observation("j1", NOW + 5, state=State.COMPLETED, stage="Completed", percentage=100, results=1),
)
STRANGER = Observation("j9", NOW + 3, state=State.RUNNING, stage="Analyzing", percentage=50)
ENDED_STRANGER = Observation("j8", NOW + 3, state=State.COMPLETED, stage="Completed")
UNKNOWN = Observation("j7", NOW + 3, found=False)
NUMBERS = count()


class World:
    """One tracker over one store, whose time is past all that it is told."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        clock = Clock()
        clock.advance(10)
        upstream = ScriptedUpstream()
        made = assembled(folder / "jobs.db", "http://127.0.0.1:9", upstream, clock=clock)
        self.jobs: Jobs = self._runner.run(self._stack.enter_async_context(made))

    def tell(self, observations: Sequence[Observation], *, at_once: bool) -> None:
        self._runner.run(_tell(self.jobs, observations, at_once=at_once))

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("disorder"))
    yield made
    made.close()


@st.composite
def told(draw: st.DrawFn) -> list[Observation]:
    """All of it at least once, some of it several times, in any order."""
    repeated = draw(st.lists(st.sampled_from(TRUTH), max_size=5))
    strangers = draw(st.lists(st.sampled_from((STRANGER, ENDED_STRANGER, UNKNOWN)), max_size=3))
    return draw(st.permutations([*TRUTH, *repeated, *strangers]))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(observations=told(), at_once=st.booleans())
def test_one_true_history_comes_of_it(
    world: World, observations: list[Observation], *, at_once: bool
) -> None:
    world.tell(observations, at_once=at_once)


async def _tell(jobs: Jobs, observations: Sequence[Observation], *, at_once: bool) -> None:
    number = next(NUMBERS)  # of jobs that no example before had
    await jobs.create(f"j1-{number}")
    named = [replace(each, job_id=f"{each.job_id}-{number}") for each in observations]
    if at_once:
        await asyncio.gather(*(jobs.tracker.observe(each, "stream") for each in named))
    else:
        for each in named:
            await jobs.tracker.observe(each, "stream")
    await _check(jobs, number, has_stranger=STRANGER in observations)


async def _check(jobs: Jobs, number: int, *, has_stranger: bool) -> None:
    job = await jobs.store.get(f"j1-{number}")
    assert job is not None
    assert (job.state, job.percentage, job.owner) == (State.COMPLETED, 100.0, "alice")
    timeline = await jobs.store.timeline(job.id)
    assert [entry.sequence for entry in timeline] == list(range(1, len(timeline) + 1))
    assert timeline[0].type == EventType.STARTED
    ends = [entry for entry in timeline if EventType(entry.type).terminal]
    assert ends == [timeline[-1]]
    shown = [orjson.loads(entry.body)["data"]["progress"] for entry in timeline]
    figures = [value for value in shown if value is not None]
    assert figures == sorted(figures)
    assert jobs.recorder.sequences(job.id) == [entry.sequence for entry in timeline]
    stranger = await jobs.store.get(f"j9-{number}")
    assert (stranger is not None) == has_stranger
    assert stranger is None or stranger.owner == UNKNOWN_OWNER
    assert await jobs.store.get(f"j8-{number}") is None
    assert await jobs.store.get(f"j7-{number}") is None
