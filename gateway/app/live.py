"""Policies that change while the gateway runs: watched, read whole, put in force in one step."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watchfiles import awatch

from gateway.core.error import SettingsError
from gateway.settings.load import load_policies
from gateway.settings.policy import PolicySet
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

_SETTLE_SECONDS = 0.1
_MAX_FILES = 1024

# What a file is known by: its name, and when which bytes were last put there.
Fingerprint = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class PolicyState:
    """How often policies were put in force, and what is wrong with the newest files."""

    generation: int = 1
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """A directory, and the state of its files when they were read."""

    directory: Path
    seen: Fingerprint | None

    @classmethod
    def of(cls, directory: Path) -> PolicyFiles:
        """The directory as it is now: taken before its files are read, no change is lost."""
        return cls(directory, fingerprint(directory))


class LivePolicies:
    """Puts the files of a directory in force whenever they change; `run` never ends by itself.

    All files together or none: while one is wrong, the last good set stays, and the problems stand
    in `state`, in the log and in the metrics. Notices of the file system are taken where there are
    any (a mounted ConfigMap's `..data` included); the files are looked at every `poll_seconds` all
    the same, for some file systems give none. A directory that is away leaves the last good set
    too, and counts when it comes back.
    """

    def __init__(
        self,
        files: PolicyFiles,
        apply: Callable[[PolicySet], None],
        *,
        poll_seconds: float,
        metrics: Metrics,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self.state = PolicyState()
        self._directory = files.directory
        self._apply = apply
        self._poll_seconds = poll_seconds
        self._told = told
        self._reloads = metrics.policy_reloads_total
        self._generation = metrics.policy_generation
        self._refused = metrics.policies_refused
        self._generation.set(1)
        self._wake = asyncio.Event()
        self._seen = files.seen
        self._log = get_logger("policies")

    def wake(self) -> None:
        """Read the files now, changed or not."""
        self._seen = None
        self._wake.set()

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                try:
                    async with asyncio.timeout(self._poll_seconds):
                        await self._wake.wait()
                except TimeoutError:
                    pass  # nothing was noticed: look all the same
                self._wake.clear()
                await self.look()

    async def look(self) -> None:
        """Put the files in force if they have changed since they were last read."""
        if await asyncio.to_thread(fingerprint, self._directory) == self._seen:
            return
        self._seen, policies, problems = await self._read()
        if policies is not None:
            try:
                self._apply(policies)
            except ValueError as error:  # a rule that only the policy itself knows
                problems = (f"{self._directory}: {error}",)
        self._note(problems)

    async def _read(self) -> tuple[Fingerprint | None, PolicySet | None, tuple[str, ...]]:
        """The files as they are once they rest: never half of a change."""
        before = await asyncio.to_thread(fingerprint, self._directory)
        while True:
            await asyncio.sleep(_SETTLE_SECONDS)
            policies: PolicySet | None = None
            problems: tuple[str, ...] = ()
            try:
                policies = await asyncio.to_thread(load_policies, self._directory)
            except SettingsError as error:
                problems = error.problems
            except OSError as error:
                problems = (f"{self._directory}: cannot be read: {error.strerror or error}",)
            after = await asyncio.to_thread(fingerprint, self._directory)
            if after == before:
                return after, policies, problems
            before = after

    def _note(self, problems: tuple[str, ...]) -> None:
        if problems:
            self._reloads.labels("refused").inc()
            self._refused.set(1)
            self.state = PolicyState(self.state.generation, problems)
            self._log.error(
                "policies_refused", generation=self.state.generation, problems=list(problems)
            )
        else:
            self._reloads.labels("applied").inc()
            self._refused.set(0)
            self.state = PolicyState(self.state.generation + 1)
            self._generation.set(self.state.generation)
            self._log.info("policies_applied", generation=self.state.generation)
        self._told()

    async def _listen(self) -> None:
        """Wake at the file system's notices; a directory that is replaced is watched anew."""
        while True:
            watched = _identity(self._directory)
            try:
                # A notice may get lost with the directory it was for: look now and then whether
                # it is still the same one.
                async for changes in awatch(
                    self._directory,
                    watch_filter=None,
                    debounce=50,
                    rust_timeout=max(1, int(self._poll_seconds * 1000)),
                    yield_on_timeout=True,
                ):
                    if changes:
                        self._wake.set()
                    if _identity(self._directory) != watched:
                        break
            except (OSError, RuntimeError):
                # Away, or no more watches to be had: the polling of `run` goes on.
                await asyncio.sleep(self._poll_seconds)


def fingerprint(directory: Path) -> Fingerprint | None:
    """What tells one state of the directory from another; None when it is away."""
    found: list[tuple[str, int, int, int]] = []
    try:
        for path in _files(directory):
            status = path.stat()  # of what a link leads to: a ConfigMap's files are links
            found.append((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
    except OSError:
        return None
    return tuple(sorted(found))


def _files(directory: Path) -> list[Path]:
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    paths = (directory / name for name in sorted(names)[:_MAX_FILES])
    return [path for path in paths if not path.is_dir()]


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
