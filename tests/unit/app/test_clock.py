"""The time goes on evenly, whatever is done to the host's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gateway.app import clock as clock_module
from gateway.app.clock import SteadyClock
from gateway.core.job import EventType, Observation, State
from tests.support.job import Clock, Jobs, ScriptedUpstream, assembled, serving

NOW = 1_700_000_000.0
HOUR = 3600.0


class Host:
    """A host whose wall clock is set now and then."""

    def __init__(self) -> None:
        self.uptime = 50.0
        self.set_by = 0.0
        self.clock = SteadyClock(self.wall, lambda: self.uptime)

    def wall(self) -> float:
        return NOW - 50.0 + self.uptime + self.set_by

    def run(self, seconds: float) -> None:
        """Let time pass, as the gateway does."""
        for _ in range(int(seconds)):
            self.uptime += 1
            self.clock.correct()
        self.uptime += seconds % 1
        self.clock.correct()


class JobClock(Clock):
    """The clock of `tests.support.job`, as the host's."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def __call__(self) -> float:
        return self._host.clock.now()


@pytest.fixture
def host() -> Host:
    return Host()


def test_without_a_jump_it_is_the_wall_clock(host: Host) -> None:
    host.run(1000)

    assert host.clock.now() == host.wall() == NOW + 1000


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 3.0, -3.0])
def test_a_jump_is_followed_by_a_tenth_of_the_time_that_passes(host: Host, jump: float) -> None:
    host.set_by = jump
    assert host.clock.now() == NOW
    host.run(10)
    assert host.clock.now() == pytest.approx(NOW + 10 + (1 if jump > 0 else -1))

    host.run(abs(jump) * 10)

    assert host.clock.now() == pytest.approx(host.wall())


def test_a_host_that_learns_which_day_it_is_is_followed_at_once(host: Host) -> None:
    host.set_by = 365 * 24 * HOUR
    host.clock.correct()

    assert host.clock.now() == host.wall()


@given(
    st.lists(
        st.tuples(
            st.floats(min_value=-80_000, max_value=80_000), st.floats(min_value=0, max_value=50)
        ),
        max_size=20,
    )
)
def test_it_never_goes_back_and_durations_are_a_tenth_off_at_most(
    steps: list[tuple[float, float]],
) -> None:
    host = Host()
    for set_by, seconds in steps:
        host.set_by = set_by / 2
        before = host.clock.now()
        host.run(seconds)
        passed = host.clock.now() - before

        assert 0.9 * seconds - 1e-3 <= passed <= 1.1 * seconds + 1e-3


def test_a_jump_is_said_once_and_so_is_its_end(host: Host) -> None:
    host.set_by = 5.0
    with structlog.testing.capture_logs() as lines:
        host.run(100)

    assert [(line["event"], line.get("seconds")) for line in lines] == [
        ("clock_jumped", 5.0),
        ("clock_followed", None),
    ]


async def test_it_is_corrected_while_it_runs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_module, "CORRECT_SECONDS", 0)
    host.set_by = 2.0
    task = asyncio.create_task(host.clock.run())
    while host.clock.now() - host.uptime < NOW - 50.0 + 2.0:
        host.uptime += 1
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert host.clock.now() == pytest.approx(host.wall())


# --- and what that means for a job ----------------------------------------------------------------


@pytest.fixture
async def jobs(tmp_path: Path, host: Host) -> AsyncIterator[Jobs]:
    upstream = ScriptedUpstream()
    async with (
        serving(upstream) as url,
        assembled(tmp_path / "jobs.db", url, upstream, clock=JobClock(host)) as made,
    ):
        yield made


async def see(jobs: Jobs, percentage: float) -> None:
    seen = Observation("j1", jobs.clock(), state=State.RUNNING, stage="s", percentage=percentage)
    await jobs.tracker.observe(seen, "poll")


async def test_progress_is_seen_although_the_clock_went_back(jobs: Jobs, host: Host) -> None:
    await jobs.create()
    await see(jobs, 10)
    host.set_by = -HOUR
    host.run(5)
    await see(jobs, 20)

    job = jobs.tracker.active("j1")
    assert job is not None
    assert job.percentage == 20
    assert jobs.recorder.types()[-1] is EventType.PROGRESS


async def test_a_job_does_not_run_out_of_its_time_because_the_clock_went_on(
    jobs: Jobs, host: Host
) -> None:
    await jobs.create()
    await see(jobs, 10)
    host.set_by = 2 * HOUR
    host.run(60)

    job = await jobs.tracker.expire("j1")

    assert job is not None
    assert job.state is State.RUNNING
