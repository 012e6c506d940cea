"""How many jobs may be active at once: more are refused before the upstream hears of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.core.admission import expected_wait_seconds
from gateway.core.contract import CREATE
from gateway.core.error import ServiceUnavailable
from gateway.core.job import Job, JobChange
from gateway.core.message import Handler, Request, Response
from gateway.settings.model import Admission as AdmissionSettings
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

DEFAULT_WAIT_SECONDS = 30.0
_MAX_WAIT_SECONDS = 3600


class ActiveJobs(Protocol):
    """The jobs that have not ended, and how long the latest that did took, in seconds."""

    @property
    def active_count(self) -> int:
        """How many there are."""
        ...

    @property
    def active_jobs(self) -> Sequence[Job]:
        """Each of them."""
        ...

    @property
    def durations(self) -> Sequence[float]:
        """Of those that ended."""
        ...


class Admission:
    """Lets a creation through while fewer jobs are active, or being created, than may be.

    A creation holds its place until its job is among the active ones, which `noted` is told at that
    very moment: so no two creations take the last place, and none counts twice.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        jobs: ActiveJobs,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._max = settings.max_concurrent
        self._max_per_owner = settings.max_per_owner
        self._enforced = settings.mode == "enforce"
        self._jobs = jobs
        self._now = now
        self._arriving: dict[str, str] = {}  # owners by request id
        self._decisions = metrics.admission_decisions_total
        self._log = get_logger("admission")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Pass a creation on, or raise `ServiceUnavailable` with `Retry-After`."""
        if request.match.name != CREATE:
            return await call_next(request)
        error = self.decide(request)
        if error is None:
            self._decisions.labels("admitted").inc()
        else:
            self._decisions.labels("refused" if self._enforced else "shadow").inc()
            if self._enforced:
                raise error
            self._log.info("admission_shadow", owner=request.owner, request_id=request.request_id)
        self._arriving[request.request_id] = request.owner
        try:
            return await call_next(request)
        finally:
            self._arriving.pop(request.request_id, None)

    async def noted(self, change: JobChange) -> None:
        """A job has just become active, its place passes from its creation to it."""
        if change.before is None and change.job.request_id is not None:
            self._arriving.pop(change.job.request_id, None)

    def decide(self, request: Request) -> ServiceUnavailable | None:
        """Why the creation is not admitted now, None if it is; nothing is counted."""
        if self._jobs.active_count + len(self._arriving) >= self._max:
            return self._full(self._jobs.active_jobs, self._max, "")
        if self._max_per_owner is None:
            return None
        owner = request.owner
        own = [job for job in self._jobs.active_jobs if job.owner == owner]
        arriving = sum(each == owner for each in self._arriving.values())
        if len(own) + arriving >= self._max_per_owner:
            return self._full(own, self._max_per_owner, " of yours")
        return None

    def explain(self, request: Request) -> str:
        """What it would decide and why, in a sentence."""
        if request.match.name != CREATE:
            return "not asked: only creations count"
        per_owner = "" if self._max_per_owner is None else f", {self._max_per_owner} of one owner"
        shadow = "" if self._enforced else " (shadow: let through)"
        return f"{self._max} jobs may be active at once{per_owner}{shadow}"

    def _full(self, jobs: Sequence[Job], most: int, whose: str) -> ServiceUnavailable:
        now = self._now()
        wait = expected_wait_seconds(
            (now - job.created_at for job in jobs), self._jobs.durations, DEFAULT_WAIT_SECONDS
        )
        seconds = min(_MAX_WAIT_SECONDS, max(1, math.ceil(wait)))
        return ServiceUnavailable(
            f"{most} jobs{whose} are active, which is the most at once; try again in {seconds} s.",
            headers={"Retry-After": str(seconds)},
        )
