"""How many jobs may be active at once: more are refused before the upstream hears of them."""

from __future__ import annotations

import math
from collections.abc import Callable

from gateway.core.admission import Bound, expected_wait_seconds
from gateway.core.contract import CREATE
from gateway.core.error import ServiceUnavailable
from gateway.core.message import Handler, Request, Response
from gateway.policy.place import ActiveJobs, Applicant, Places
from gateway.policy.step import NOTHING, Step
from gateway.settings.job import Admission as AdmissionSettings
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

DEFAULT_WAIT_SECONDS = 30.0
_MAX_WAIT_SECONDS = 3600


class Admission:
    """Lets a creation through while fewer jobs are active, or being created, than may be."""

    def __init__(
        self,
        settings: AdmissionSettings,
        places: Places,
        jobs: ActiveJobs,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._enforced = settings.mode == "enforce"
        self._places = places
        self._jobs = jobs
        self._now = now
        self._decisions = metrics.admission_decisions_total
        self._log = get_logger("admission")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Pass a creation on, or raise `ServiceUnavailable` with `Retry-After`."""
        if request.match.name != CREATE:
            return await call_next(request)
        applicant = Applicant.of(request)
        full = await self._places.take(applicant, anyway=not self._enforced)
        if full is None:
            self._decisions.labels("admitted").inc()
        elif self._enforced:
            self._decisions.labels("refused").inc()
            raise self._refusal(full)
        else:
            self._decisions.labels("shadow").inc()
            self._log.info("admission_shadow", owner=request.owner, **request.ids)
        try:
            return await call_next(request)
        finally:
            await self._places.leave(applicant)

    def step(self, request: Request, response: Response) -> Step | None:  # noqa: ARG002
        """Nothing for what is no creation."""
        return None if request.match.name == CREATE else NOTHING

    def explain(self, request: Request) -> str:
        """What it would decide and why, in a sentence."""
        if request.match.name != CREATE:
            return "not asked: only creations count"
        bounds = self._settings
        per_owner = "" if bounds.max_per_owner is None else f", {bounds.max_per_owner} of one owner"
        per_key = "" if bounds.max_per_key is None else f", {bounds.max_per_key} of one key"
        shadow = "" if self._enforced else " (shadow: let through)"
        return f"{bounds.max_concurrent} jobs may be active at once{per_owner}{per_key}{shadow}"

    def _refusal(self, full: Bound) -> ServiceUnavailable:
        now = self._now()
        ages = (now - job.created_at for job in self._jobs.active_jobs if full.counts(job))
        wait = expected_wait_seconds(ages, self._jobs.durations, DEFAULT_WAIT_SECONDS)
        seconds = min(_MAX_WAIT_SECONDS, max(1, math.ceil(wait)))
        return ServiceUnavailable(
            f"{full.limit} jobs{full.whose} are active, which is the most at once; "
            f"try again in {seconds} s.",
            headers={"Retry-After": str(seconds)},
        )
