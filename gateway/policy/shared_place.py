"""Places that all replicas in front of one upstream share, and the way on without their store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from gateway.core.admission import Bound, Holder
from gateway.core.error import StoreUnavailable
from gateway.core.job import Job, JobChange
from gateway.policy.place import ActiveJobs, Applicant, LocalPlaces
from gateway.store.place import Place, PlaceStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

OnStoreError = Literal["local", "allow", "deny"]
_RENEWALS = 3  # within a lease: two may fail before a job's place is lost


@dataclass(frozen=True, slots=True)
class Leases:
    """How long a place is held without a word, in seconds.

    A creation's is longer than a creation can take; a job's is renewed while any replica knows it.
    """

    creation: float
    job: float


class SharedPlaces:
    """Takes each place in the store, in one step, so that all replicas together keep the bounds.

    A place is a creation's, then its job's, and is given back when either ends; should that fail,
    its lease ends. In `run` every replica holds the places of all active jobs, so that none is lost
    with one of them. While the store is away, `local` counts what this replica knows, `allow` none.
    """

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        store: PlaceStore,
        local: LocalPlaces,
        jobs: ActiveJobs,
        *,
        leases: Leases,
        on_store_error: OnStoreError,
        metrics: Metrics,
        now: Callable[[], float],
        token: Callable[[], str],
    ) -> None:
        self._store = store
        self._local = local
        self._jobs = jobs
        self._leases = leases
        self._on_store_error = on_store_error
        self._now = now
        self._token = token
        self._kept_at = -math.inf
        self._is_away = False
        self._errors = metrics.store_errors_total.labels("places")
        self._log = get_logger("admission")

    async def take(self, applicant: Applicant, *, anyway: bool) -> Bound | None:
        """Take a place; if there is none, the first bound that is reached, and none is taken.

        `anyway` takes one all the same. Raises StoreUnavailable where that is policy.
        """
        name = f"creation:{self._token()}"
        bounds = self._local.bounds.on(applicant)
        try:
            full = await self._take(name, bounds, anyway=anyway)
        except StoreUnavailable as error:
            self._note_away(error)
            return self._without(applicant, name, error, anyway=anyway)
        except asyncio.CancelledError:
            await self._quietly(self._store.free(self._place(name, applicant)))  # it may have one
            raise
        if full is None or anyway:
            self._local.enter(applicant, name)
        return None if full is None else bounds[full]

    async def leave(self, applicant: Applicant) -> None:
        """The creation has ended: its place goes, unless its job has it."""
        name = self._local.left(applicant)
        if name is not None:
            await self._quietly(self._store.free(self._place(name, applicant)))

    async def noted(self, change: JobChange) -> None:
        """This replica has recorded a change: a new job has its creation's place, an ended none."""
        place = self._of_job(change.job)
        name = self._local.pass_on(change)
        if change.job.state.terminal:
            if name is not None:
                await self._quietly(self._store.free(self._place(name, change.job)))
            await self._quietly(self._store.free(place))
        elif name is not None:
            await self._quietly(self._store.pass_on(name, place, self._leases.job))
        elif change.before is None:
            await self._quietly(self._store.keep([place], self._leases.job))

    async def noted_elsewhere(self, change: JobChange) -> None:
        """Another replica has: what this one held of a job that ended goes too."""
        if change.job.state.terminal:
            await self._quietly(self._store.free(self._of_job(change.job)))

    async def run(self) -> None:
        """Hold the places of the active jobs until cancelled."""
        while True:
            await self._quietly(self._keep())
            await asyncio.sleep(self._leases.job / _RENEWALS)

    async def _take(self, name: str, bounds: tuple[Bound, ...], *, anyway: bool) -> int | None:
        # Away, stopped or begun only now: leases may have ended of jobs that go on.
        if not 0 <= self._now() - self._kept_at < self._leases.job / 2:
            await self._keep()
        full = await self._store.take(name, bounds, self._leases.creation, anyway=anyway)
        if self._is_away:
            self._is_away = False
            self._log.info("places_back")
        return full

    async def _keep(self) -> None:
        now = self._now()
        await self._store.keep(list(map(self._of_job, self._jobs.active_jobs)), self._leases.job)
        self._kept_at = now

    def _without(
        self, applicant: Applicant, name: str, error: StoreUnavailable, *, anyway: bool
    ) -> Bound | None:
        """What is decided while the store is away. A place it may have given goes with `leave`."""
        if self._on_store_error == "deny" and not anyway:
            raise error
        if self._on_store_error == "local":
            return self._local.take_now(applicant, name, anyway=anyway)
        self._local.enter(applicant, name)
        return None

    async def _quietly(self, work: Awaitable[None]) -> None:
        try:
            await work
        except StoreUnavailable as error:
            self._note_away(error)  # the lease ends, and the next renewal makes up for the rest

    def _note_away(self, error: StoreUnavailable) -> None:
        self._errors.inc()
        self._kept_at = -math.inf
        if not self._is_away:
            self._is_away = True
            self._log.warning("places_away", error=error.detail, result=self._on_store_error)

    def _of_job(self, job: Job) -> Place:
        return self._place(f"job:{job.id}", job)

    def _place(self, name: str, holder: Holder) -> Place:
        return Place(name, tuple(bound.group for bound in self._local.bounds.on(holder)))
