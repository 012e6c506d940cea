"""The jobs that have not ended, as last known, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from weakref import WeakValueDictionary

from gateway.core.job import Job
from gateway.store.job import JobStore
from gateway.telemetry.metric import Metrics


class Roster:
    """Every unfinished job; each is changed under its own lock.

    `own_only`: each replica has an upstream of its own, `instance`, and what that says of other
    instances' jobs is nothing. `unrecorded` are those that the store could not take yet.
    """

    def __init__(self, store: JobStore, *, instance: str, own_only: bool, metrics: Metrics) -> None:
        self.instance = instance
        self.unrecorded: dict[str, Job] = {}
        self._store = store
        self._own_only = own_only
        self._metrics = metrics
        self._jobs: dict[str, Job] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Take up every unfinished job of the store."""
        for job in await self._store.unfinished():
            self._jobs[job.id] = job
        self._metrics.jobs_active.set(len(self._jobs))

    @property
    def jobs(self) -> Sequence[Job]:
        """Every recorded job, of whatever instance."""
        return list(self._jobs.values())

    @property
    def upstreams(self) -> frozenset[str]:
        """The instances that have jobs which have not ended."""
        return frozenset(job.upstream for job in self._jobs.values())

    @property
    def active_count(self) -> int:
        """How many jobs have not ended, those that could not be recorded yet among them.

        With `own_only`, of this instance's.
        """
        if self._own_only:
            return len(self.active_jobs)
        return len(self._jobs) + sum(job_id not in self._jobs for job_id in self.unrecorded)

    @property
    def active_jobs(self) -> Sequence[Job]:
        """Those jobs."""
        jobs = (self.unrecorded | self._jobs).values()
        return [job for job in jobs if not self.is_foreign(job)]

    def is_foreign(self, job: Job) -> bool:
        """True when this replica's upstream knows nothing of the job."""
        return self._own_only and job.upstream != self.instance

    def get(self, job_id: str) -> Job | None:
        """A recorded job, from memory."""
        return self._jobs.get(job_id)

    async def load(self, job_id: str) -> Job | None:
        """A job from memory, else from the store. Raises `StoreUnavailable`."""
        job = self._jobs.get(job_id)
        if job is None:
            job = await self._store.get(job_id)
            if job is not None and not job.state.terminal:
                self._jobs[job_id] = job
        return job

    def note(self, job: Job) -> None:
        """Remember what nobody needs recorded."""
        self._jobs[job.id] = job

    def put(self, job: Job) -> None:
        """Remember a job as recorded; one that has ended is forgotten."""
        if job.state.terminal:
            self._jobs.pop(job.id, None)
        else:
            self._jobs[job.id] = job
        self._metrics.jobs_active.set(len(self._jobs))

    def drop(self, job_id: str) -> None:
        """Forget it: the store knows better."""
        self._jobs.pop(job_id, None)

    def lock(self, job_id: str) -> asyncio.Lock:
        """To be held while the job changes."""
        return self._locks.setdefault(job_id, asyncio.Lock())

    def is_locked(self, job_id: str) -> bool:
        """True while somebody changes the job."""
        lock = self._locks.get(job_id)
        return lock is not None and lock.locked()
