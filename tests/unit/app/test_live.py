"""Policies put in force while the gateway runs: all of them, or none."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import structlog

from gateway.app.live import LivePolicies, PolicyFiles, PolicyState, fingerprint
from gateway.settings.load import load_policies
from gateway.settings.policy import PolicySet
from gateway.telemetry.metric import Metrics
from tests.support.policy import sample

GOOD = "enabled: true\nlimits: {a: {limit: %d, window: 60s}}\n"
LONG = 3600.0  # nothing is polled: a test that passes was woken by a notice


class Applied:
    """What was put in force, and a way to wait for more."""

    def __init__(self) -> None:
        self.sets: list[PolicySet] = []
        self.changed = asyncio.Condition()
        self.error: str | None = None

    def __call__(self, policies: PolicySet) -> None:
        if self.error is not None:
            raise ValueError(self.error)
        self.sets.append(policies)

    @property
    def limits(self) -> list[int]:
        return [policies.rate_limits.limits["a"].limit for policies in self.sets]


class Watched:
    """A directory, followed."""

    def __init__(self, directory: Path, *, poll_seconds: float = LONG) -> None:
        self.directory = directory
        self.applied = Applied()
        self.metrics = Metrics()
        self._read = asyncio.Event()
        self.live = LivePolicies(
            PolicyFiles.of(directory),
            self.applied,
            poll_seconds=poll_seconds,
            metrics=self.metrics,
            told=self._read.set,
        )

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.live.run())
        try:
            yield
        finally:
            task.cancel()
            async with asyncio.timeout(5):
                await asyncio.gather(task, return_exceptions=True)

    async def read_within(self, seconds: float) -> None:
        """Return once the files were read, or after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._read.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the files were read and the condition holds."""
        async with asyncio.timeout(10):
            while not condition():
                await self._read.wait()
                self._read.clear()

    def make(self) -> None:
        self.directory.mkdir()

    def replace(self) -> None:
        self.directory.rename(self.directory.with_name("old"))
        self.make()

    def write(self, limit: int) -> None:
        (self.directory / "rate_limits.yaml").write_text(GOOD % limit)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "policies"
    path.mkdir()
    (path / "rate_limits.yaml").write_text(GOOD % 1)
    return path


async def test_a_change_is_noticed_and_put_in_force(directory: Path) -> None:
    watched = Watched(directory)
    async with watched.followed(), asyncio.timeout(10):
        # When the notices begin is the file system's affair: change the file until one is heard.
        limit = 1
        while not watched.applied.limits:
            limit += 1
            watched.write(limit)
            await watched.read_within(0.5)

    assert watched.applied.limits[0] > 1
    assert sample(watched.metrics, "policy_generation") == watched.live.state.generation > 1


async def test_what_notices_do_not_tell_is_polled(directory: Path) -> None:
    watched = Watched(directory, poll_seconds=0.05)
    watched.write(2)  # before anything listens
    async with watched.followed():
        await watched.until(lambda: watched.applied.limits == [2])


async def test_a_configmaps_swap_of_links_is_one_change(tmp_path: Path) -> None:
    """As the kubelet does it: files are links through `..data`, which is renamed over."""
    directory = tmp_path / "mounted"
    directory.mkdir()

    def version(name: str, limit: int) -> None:
        (directory / name).mkdir()
        (directory / name / "rate_limits.yaml").write_text(GOOD % limit)
        (directory / "..data_tmp").symlink_to(name)
        os.rename(directory / "..data_tmp", directory / "..data")  # noqa: PTH104 - over a link

    version("..2026_01", 1)
    (directory / "rate_limits.yaml").symlink_to("..data/rate_limits.yaml")
    watched = Watched(directory, poll_seconds=0.05)
    async with watched.followed():
        version("..2026_02", 2)
        shutil.rmtree(directory / "..2026_01")
        await watched.until(lambda: watched.applied.limits == [2])

    assert watched.live.state == PolicyState(2)


async def test_a_bad_file_leaves_the_last_good_set_and_is_told(directory: Path) -> None:
    watched = Watched(directory, poll_seconds=0.05)
    with structlog.testing.capture_logs() as lines:
        async with watched.followed():
            (directory / "rate_limits.yaml").write_text("limits: {a: {limit: -1, windw: 60s}}\n")
            (directory / "cache.yaml").write_text("tll: 1s\n")
            await watched.until(lambda: bool(watched.live.state.problems))
            problems = watched.live.state.problems
            assert sample(watched.metrics, "policies_refused") == 1
            watched.write(3)
            (directory / "cache.yaml").unlink()
            await watched.until(lambda: not watched.live.state.problems)

    assert watched.applied.limits == [3]
    assert f"{directory}/cache.yaml:1: tll: unknown key; did you mean 'ttl'?" in problems
    assert any("limits.a.limit: must be at least 1" in problem for problem in problems)
    assert any("did you mean 'window'?" in problem for problem in problems)
    assert sample(watched.metrics, "policies_refused") == 0
    assert sample(watched.metrics, "policy_reloads_total", result="refused") == 1
    [refused] = [line for line in lines if line["event"] == "policies_refused"]
    assert refused["problems"] == list(problems)


async def test_a_directory_that_vanishes_and_comes_back(directory: Path) -> None:
    watched = Watched(directory, poll_seconds=0.05)
    async with watched.followed():
        shutil.rmtree(directory)
        await watched.until(lambda: bool(watched.live.state.problems))
        assert "is not a directory" in watched.live.state.problems[0]
        assert watched.applied.sets == []
        watched.make()
        watched.write(4)
        await watched.until(lambda: watched.applied.limits == [4])


async def test_a_directory_that_is_replaced_is_watched_anew(directory: Path) -> None:
    watched = Watched(directory, poll_seconds=0.2)
    async with watched.followed():
        watched.replace()
        watched.write(5)
        await watched.until(lambda: watched.applied.limits == [5])
        watched.write(6)
        await watched.until(lambda: watched.applied.limits == [5, 6])


async def test_what_cannot_be_made_is_refused_whole(directory: Path) -> None:
    watched = Watched(directory)
    watched.applied.error = "no such thing"
    watched.write(2)

    await watched.live.look()

    assert watched.live.state == PolicyState(1, (f"{directory}: no such thing",))


async def test_files_that_are_as_they_were_are_not_read_again(directory: Path) -> None:
    watched = Watched(directory)

    await watched.live.look()
    assert watched.applied.sets == []

    watched.live.wake()
    await watched.live.look()
    assert watched.applied.limits == [1]


async def test_files_that_change_while_they_are_read_are_read_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(directory)
    watched.write(2)
    reads = 0

    def load(path: Path) -> PolicySet:
        nonlocal reads
        reads += 1
        found = load_policies(path)
        if reads == 1:
            watched.write(30)
        return found

    monkeypatch.setattr("gateway.app.live.load_policies", load)

    await watched.live.look()

    assert (reads, watched.applied.limits) == (2, [30])


def test_a_directory_is_known_by_its_files(directory: Path) -> None:
    before = fingerprint(directory)

    (directory / ".swp").touch()
    (directory / "more").mkdir()
    assert fingerprint(directory) == before
    (directory / "a.schema.json").touch()
    assert fingerprint(directory) != before
    assert fingerprint(directory / "none") is None
