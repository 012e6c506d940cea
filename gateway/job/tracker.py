"""The one place where observations become recorded changes of jobs.

Whatever is seen of a job — its creation, a client's poll, the watcher's stream — comes here, is
applied under the job's lock by `core.transition` (`intake`), and is committed with its events and
messages at once (`record`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from gateway.core.contract import Contract
from gateway.core.job import Job, Observation
from gateway.core.transition import WatchRule
from gateway.job.birth import Births, Creation, Prepare
from gateway.job.intake import Details, Intake
from gateway.job.meter import Meter
from gateway.job.record import Listener, Record, Subscriber
from gateway.job.replication import Replication
from gateway.job.roster import Roster
from gateway.store.job import JobStore
from gateway.telemetry.metric import Metrics


class Tracker:
    """Knows every unfinished job in memory and records what changes.

    `own_only`: each replica has an upstream of its own, `instance`, and what that says of other
    instances' jobs is nothing.
    """

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        jobs: JobStore,
        contract: Contract,
        rule: WatchRule,
        subscribers: Sequence[Subscriber],
        prepare: Prepare,
        details: Details,
        instance: str,
        own_only: bool = False,
        adopt: bool,
        metrics: Metrics,
        now: Callable[[], float],
        token: Callable[[int], bytes],
    ) -> None:
        self._store = jobs
        self._tasks: set[asyncio.Task[None]] = set()
        self._meter = Meter(metrics)
        self._roster = Roster(jobs, instance=instance, own_only=own_only, metrics=metrics)
        self._record = Record(jobs, self._roster, self._meter, contract, subscribers)
        self._births = Births(
            jobs,
            self._roster,
            self._record,
            prepare=prepare,
            adopt=adopt,
            spawn=self._spawn,
            metrics=metrics,
            now=now,
            token=token,
        )
        self._replication = Replication(jobs, self._roster, self._births)
        self._intake = Intake(
            self._roster,
            self._record,
            self._births,
            self._replication,
            contract=contract,
            rule=rule,
            details=details,
            spawn=self._spawn,
            metrics=metrics,
            now=now,
        )

    @property
    def store(self) -> JobStore:
        """Where the jobs are."""
        return self._store

    @property
    def heralds(self) -> list[Listener]:
        """Those who hear of every change, before it is committed here where it is worth that."""
        return self._record.heralds

    @property
    def listeners(self) -> list[Listener]:
        """Those who hear of the changes recorded here."""
        return self._record.listeners

    @property
    def listeners_elsewhere(self) -> list[Listener]:
        """Those who hear of the changes that another replica recorded."""
        return self._replication.listeners

    @property
    def durations(self) -> deque[float]:
        """How long the jobs that ended last took, in seconds."""
        return self._meter.durations

    async def open(self) -> None:
        """Take up every unfinished job of the store, and how long the latest ones took."""
        await self._roster.open()
        await self._meter.open(self._store)

    async def close(self) -> None:
        """Wait for observations under way; a creation that cannot be recorded is given up."""
        self._births.close()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what is known ---------------------------------------------------------------------------

    def active(self, job_id: str) -> Job | None:
        """An unfinished job as last known, from memory."""
        return self._roster.get(job_id)

    def is_active(self, job_id: str) -> bool:
        """True while the job has not ended, and its next change will be heard of."""
        return self._roster.get(job_id) is not None

    def is_foreign(self, job: Job) -> bool:
        """True when this replica's upstream knows nothing of the job."""
        return self._roster.is_foreign(job)

    @property
    def upstreams(self) -> frozenset[str]:
        """The instances that have jobs which have not ended."""
        return self._roster.upstreams

    @property
    def active_count(self) -> int:
        """How many jobs have not ended, those that could not be recorded yet among them.

        With `own_only`, of this instance's.
        """
        return self._roster.active_count

    @property
    def active_jobs(self) -> Sequence[Job]:
        """Those jobs."""
        return self._roster.active_jobs

    @property
    def unrecorded(self) -> Mapping[str, Job]:
        """The jobs that the store could not take yet, by id: a view, of now and later."""
        return self._roster.unrecorded

    # --- what happens ----------------------------------------------------------------------------

    def creating(self) -> AbstractContextManager[None]:
        """A context for the time a creation is under way: strangers are not adopted meanwhile."""
        return self._births

    async def created(self, observation: Observation, creation: Creation) -> Job:
        """Remember a job that a client created; returns when it is committed.

        While the store is away the job is kept in memory and recorded as soon as it is back.
        """
        return await self._births.created(observation, creation)

    def offer(self, observation: Observation, source: str) -> None:
        """Take an observation from clients' traffic; what changes nothing costs no task."""
        self._intake.offer(observation, source)

    async def observe(self, observation: Observation, source: str) -> Job | None:
        """Apply an observation and commit what it changes; the job afterwards, None if unknown.

        Raises `StoreUnavailable`; the observation is then made again at the next poll.
        """
        return await self._intake.observe(observation, source)

    async def expire(self, job_id: str) -> Job | None:
        """Apply the mere passing of time; the job afterwards, None if unknown."""
        return await self._intake.expire(job_id)

    async def lose(self, job_id: str) -> Job | None:
        """End a job whose upstream instance is gone; the job afterwards, None if unknown."""
        return await self._intake.lose(job_id)

    def refuse(self, source: str, reason: str, detail: str, job_id: str | None) -> None:
        """Log and count an answer, or a part of one, that cannot be used; the job is followed."""
        self._intake.refuse(source, reason, detail, job_id)

    # --- what happens elsewhere ------------------------------------------------------------------

    async def refresh(self, job_id: str, version: int) -> None:
        """Take up what another replica recorded, if it is news here. Raises `StoreUnavailable`."""
        await self._replication.refresh(job_id, version)

    async def reload(self) -> None:
        """Hold the memory against the store: notices may have been missed.

        Raises `StoreUnavailable`.
        """
        await self._replication.reload()

    async def restore(self) -> int:
        """Record anew the jobs that the store has lost; how many. Raises `StoreUnavailable`."""
        return await self._replication.restore()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
