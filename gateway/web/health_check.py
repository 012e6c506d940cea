"""The checks behind `/health`, one function a kind of component. None changes what it looks at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import aiohttp
import psutil

from gateway.core.job import Job, State
from gateway.core.outbox import Backlog
from gateway.policy.openapi_source import SourceState
from gateway.settings.health import Dependency
from gateway.settings.model import Settings
from gateway.telemetry.log import mask
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import UpstreamClient
from gateway.web.health import Check, Reading, Status

MEMORY_WARNING = 0.9  # share of the allowed memory
MAX_PROBLEMS = 20  # of policy files, shown in health
MIN_ATTEMPTS = 10  # fewer say nothing about a ratio
# Results of gateway_delivery_attempts_total: the one that means success, and those of messages that
# were not sent, which say nothing about a receiver.
DELIVERED = "ok"
NOT_SENT = frozenset({"cancelled", "skipped", "superseded"})
_SAMPLE_SECONDS = 0.25
_UPSTREAM_BYTES = 64 * 1024


def absent() -> Check:
    """A component that the settings do not name: shown, and no reason for concern."""

    async def check() -> Reading:
        return Reading(Status.NOT_CONFIGURED)

    return check


def reads(read: Callable[[], Awaitable[object]]) -> Check:
    """A store: healthy when a read succeeds."""

    async def check() -> Reading:
        await read()
        return Reading()

    return check


def file(probe: Callable[[], Awaitable[int]], min_free_bytes: int) -> Check:
    """The SQLite file: healthy when `probe` reads and commits, and its volume has room."""

    async def check() -> Reading:
        free = await probe()
        detail = {"free_bytes": free, "min_free_bytes": min_free_bytes}
        if free < min_free_bytes:
            return Reading(Status.DEGRADED, "its volume is nearly full", detail)
        return Reading(detail=detail)

    return check


def answers(ask: Callable[[], Awaitable[int]], expect: Sequence[int] = ()) -> Check:
    """Something over HTTP: healthy when `ask` gives an expected status code, or any under 500."""

    async def check() -> Reading:
        code = await ask()
        if code in expect if expect else code < 500:
            return Reading(detail={"status_code": code})
        return Reading(Status.UNHEALTHY, f"answered {code}", {"status_code": code})

    return check


def dependency(session: aiohttp.ClientSession, settings: Dependency) -> Check:
    """A further service from `health.dependencies`, asked with GET and without credentials."""

    async def ask() -> int:
        timeout = aiohttp.ClientTimeout(total=settings.timeout)
        async with session.get(settings.url, timeout=timeout, allow_redirects=False) as response:
            return response.status

    return answers(ask, settings.expect)


def upstream(client: UpstreamClient, settings: Settings) -> Check:
    """The job API, asked where its settings say that its health is."""

    async def ask() -> int:
        answer = await client.fetch(
            "GET",
            settings.upstream.health_path,
            {},
            limit=_UPSTREAM_BYTES,
            seconds=settings.health.timeout,
        )
        return answer.status

    return answers(ask)


def open_session() -> aiohttp.ClientSession:
    """The session for dependencies: no cookies, no proxy from the environment. Must be closed."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


def memory(max_bytes: int, resident: Callable[[], int] | None = None) -> Check:
    """The process's resident memory, against what it may have."""
    measure = resident or _resident

    async def check() -> Reading:
        used = measure()
        detail = {"resident_bytes": used, "max_bytes": max_bytes}
        if used >= max_bytes:
            return Reading(Status.UNHEALTHY, "more memory is used than is allowed", detail)
        if used >= max_bytes * MEMORY_WARNING:
            return Reading(Status.DEGRADED, "memory is nearly used up", detail)
        return Reading(detail=detail)

    return check


def cpu(max_share: float, percent: Callable[[], float] | None = None) -> Check:
    """The process's CPU time since the last check, in percent of one core.

    The event loop has no more than one: from `max_share` of it on the gateway is degraded.
    """
    # The first call of psutil's has nothing to compare with and says 0.
    measure = percent or psutil.Process().cpu_percent

    async def check() -> Reading:
        used = measure()
        detail = {"percent": used, "max_percent": round(max_share * 100, 3)}
        if used >= max_share * 100:
            return Reading(Status.DEGRADED, "the event loop's core is nearly used up", detail)
        return Reading(detail=detail)

    return check


class LoopLag:
    """Samples how late the event loop runs its timers; shows the worst since the last check."""

    def __init__(self, metrics: Metrics, max_seconds: float) -> None:
        self._metrics = metrics
        self._max_seconds = max_seconds
        self._worst_seconds = 0.0

    async def run(self) -> None:
        """Sample for ever; cancel to stop."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + _SAMPLE_SECONDS
            await asyncio.sleep(_SAMPLE_SECONDS)
            self.note(max(0.0, clock() - due))

    def note(self, lag_seconds: float) -> None:
        """Take one sample."""
        self._metrics.event_loop_lag_seconds.set(lag_seconds)
        self._worst_seconds = max(self._worst_seconds, lag_seconds)

    async def check(self) -> Reading:
        """Degraded when a timer was later than allowed."""
        worst, self._worst_seconds = self._worst_seconds, 0.0
        detail = {"worst_seconds": round(worst, 6), "max_seconds": self._max_seconds}
        if worst > self._max_seconds:
            return Reading(Status.DEGRADED, "something blocks the event loop", detail)
        return Reading(detail=detail)


def queue(active: Callable[[], Sequence[Job]], now: Callable[[], float]) -> Check:
    """The jobs that have not ended: how many, the oldest, and those the upstream denies.

    `active` says them from memory: ten thousand of them from the store would hold up the loop.
    """

    async def check() -> Reading:
        jobs = active()
        lost = sum(job.lost_since is not None for job in jobs)
        detail = {
            "active": len(jobs),
            "queued": sum(job.state is State.QUEUED for job in jobs),
            "running": sum(job.state is State.RUNNING for job in jobs),
            "oldest_seconds": _age(min((job.created_at for job in jobs), default=None), now()),
            "lost": lost,
        }
        if lost:
            return Reading(Status.DEGRADED, "the upstream no longer knows some jobs", detail)
        return Reading(detail=detail)

    return check


class Delivery:
    """What waits for a sink's destinations, and the share of attempts that succeeded of late."""

    def __init__(
        self,
        sink: str,
        backlog: Callable[[], Awaitable[Sequence[Backlog]]],
        metrics: Metrics,
        now: Callable[[], float],
        min_share: float,
    ) -> None:
        self._min_share = min_share
        self._sink = sink
        self._backlog = backlog
        self._metrics = metrics
        self._now = now
        self._seen = (0.0, 0.0)

    async def check(self) -> Reading:
        """Degraded when too small a share of the attempts since the last check succeeded."""
        lines = [line for line in await self._backlog() if line.sink == self._sink]
        oldest = min((line.oldest_at for line in lines if line.oldest_at is not None), default=None)
        ratio, attempts = self._ratio()
        detail = {
            "waiting": sum(line.waiting for line in lines),
            "in_flight": sum(line.in_flight for line in lines),
            "oldest_seconds": _age(oldest, self._now()),
            "success_ratio": None if ratio is None else round(ratio, 4),
        }
        if ratio is not None and ratio < self._min_share and attempts >= MIN_ATTEMPTS:
            return Reading(Status.DEGRADED, "too many deliveries fail", detail)
        return Reading(detail=detail)

    def _ratio(self) -> tuple[float | None, float]:
        total, good = attempts(self._metrics, self._sink)
        new, new_good = total - self._seen[0], good - self._seen[1]
        self._seen = (total, good)
        return (new_good / new if new else None), new


def attempts(metrics: Metrics, sink: str) -> tuple[float, float]:
    """How many attempts a sink sent since the start, and how many of them succeeded."""
    counts: Mapping[str, float] = {
        sample.labels["result"]: sample.value
        for family in metrics.delivery_attempts_total.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
        and sample.labels["sink"] == sink
        and sample.labels["result"] not in NOT_SENT
    }
    return sum(counts.values()), counts.get(DELIVERED, 0.0)


class LineSink(Protocol):
    """What takes log lines: how many were lost, what waits, and how long a write has hung."""

    @property
    def dropped(self) -> int:
        """Lines that never reached their reader."""
        ...

    @property
    def waiting_bytes(self) -> int:
        """What waits to be written."""
        ...

    def stalled_seconds(self) -> float:
        """How long the write under way has taken."""
        ...


class LogLines:
    """Whether log lines reach their reader: how many do not, and how long it has stood still."""

    def __init__(self, stream: LineSink | None, metrics: Metrics, slow: float) -> None:
        self._stream = stream
        self._metrics = metrics
        self._slow = slow
        self._lost = 0

    async def check(self) -> Reading:
        """Degraded while a write hangs, and when lines were lost since the last check."""
        if self._stream is None:
            return Reading(Status.NOT_CONFIGURED)
        lost, self._lost = self._stream.dropped - self._lost, self._stream.dropped
        self._metrics.log_lines_lost_total.inc(lost)
        waits = self._stream.stalled_seconds()
        detail = {"waiting_bytes": self._stream.waiting_bytes, "lines_lost": self._lost}
        if waits > self._slow:
            said = f"the log's reader stands still, for {waits:.0f} s now"
            return Reading(Status.DEGRADED, said, detail)
        if lost:
            said = f"{lost} lines were lost since the last check"
            return Reading(Status.DEGRADED, said, detail)
        return Reading(detail=detail)


def policies(generation: Callable[[], int], problems: Callable[[], Sequence[str]]) -> Check:
    """The policy files: how often they were applied; degraded while the newest are refused."""

    async def check() -> Reading:
        detail: dict[str, Any] = {"generation": generation()}
        found = problems()
        if not found:
            return Reading(detail=detail)
        detail["problems"] = [mask(each) for each in found[:MAX_PROBLEMS]]
        more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
        return Reading(Status.DEGRADED, f"{found[0]}{more}", detail)

    return check


def openapi(state: Callable[[], SourceState]) -> Check:
    """The upstream's description; degraded while requests are not held against the newest."""

    async def check() -> Reading:
        found = state()
        if not (found.wanted and found.published):
            return Reading(Status.NOT_CONFIGURED)
        detail = {"operations": found.operations}
        if found.error is not None:
            return Reading(Status.DEGRADED, found.error, detail)
        return Reading(detail=detail)

    return check


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else round(max(0.0, now - at), 3)
