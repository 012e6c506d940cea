"""What is observed of jobs becomes recorded changes: `core.transition` decides, under a lock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway.core.contract import DETAILS, Contract
from gateway.core.error import StoreUnavailable
from gateway.core.job import Job, JobChange, Observation, State
from gateway.core.transition import WatchRule, abandon, advance, expire
from gateway.job.birth import Births
from gateway.job.record import Record
from gateway.job.replication import Replication
from gateway.job.roster import Roster
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

Details = Callable[[str], Awaitable[Observation | None]]


class Intake:
    """Takes observations, whoever made them, and the passing of time."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        roster: Roster,
        record: Record,
        births: Births,
        replication: Replication,
        *,
        contract: Contract,
        rule: WatchRule,
        details: Details,
        spawn: Callable[[Awaitable[None]], None],
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._record = record
        self._births = births
        self._replication = replication
        self._contract = contract
        self._rule = rule
        self._details = details
        self._spawn = spawn
        self._metrics = metrics
        self._now = now
        self._log = get_logger("job")

    def offer(self, observation: Observation, source: str) -> None:
        """Take an observation from clients' traffic; what changes nothing costs no task."""
        self._note_correction(observation, source)
        job = self._roster.get(observation.job_id)
        if job is None:
            # A stranger, or long ended. Only what is still going on is worth a look at the store.
            is_alive = observation.found and not observation.state.terminal
            if self._births.adopt and is_alive:
                self._spawn(self._observe_quietly(observation, source))
            return
        if self._roster.is_foreign(job):
            return
        change = advance(job, observation, self._now(), self._rule)
        if change is None:
            self._count(source, "stale")
        elif not change.worth_recording and not self._roster.is_locked(job.id):
            self._roster.note(change.job)
            self._count(source, "unchanged")
        else:
            self._spawn(self._observe_quietly(observation, source))

    async def observe(self, observation: Observation, source: str) -> Job | None:
        """Apply an observation and commit what it changes; the job afterwards, None if unknown.

        Raises `StoreUnavailable`; the observation is then made again at the next poll.
        """
        self._note_correction(observation, source)
        return await self._observe(observation, source)

    async def expire(self, job_id: str) -> Job | None:
        """Apply the mere passing of time; the job afterwards, None if unknown."""
        return await self._apply(job_id, lambda job: expire(job, self._now(), self._rule))

    async def lose(self, job_id: str) -> Job | None:
        """End a job whose upstream instance is gone; the job afterwards, None if unknown."""
        return await self._apply(job_id, lambda job: abandon(job, self._now()))

    def refuse(self, source: str, reason: str, detail: str, job_id: str | None) -> None:
        """Log and count an answer, or a part of one, that cannot be used; the job is followed."""
        self._metrics.observations_refused_total.labels(reason).inc()
        self._log.warning(
            "observation_refused", source=source, reason=reason, detail=detail, job_id=job_id
        )

    async def _observe(self, observation: Observation, source: str) -> Job | None:
        async with self._roster.lock(observation.job_id):
            while True:
                job = await self._roster.load(observation.job_id)
                if job is None:
                    return await self._births.adopted(observation, source)
                if self._roster.is_foreign(job):
                    return job
                change = advance(job, observation, self._now(), self._rule)
                if change is None:
                    self._count(source, "stale")
                    return job
                if self._lacks_details(change):
                    observation = await self._with_details(observation)
                    change = advance(job, observation, self._now(), self._rule) or change
                if await self._record.commit(change):
                    self._count(source, "changed" if change.events else "unchanged")
                    return change.job
                await self._catch_up(job)

    async def _apply(self, job_id: str, change_of: Callable[[Job], JobChange | None]) -> Job | None:
        async with self._roster.lock(job_id):
            while True:
                job = await self._roster.load(job_id)
                if job is None:
                    return None
                change = change_of(job)
                if change is None or await self._record.commit(change):
                    return change.job if change else job
                await self._catch_up(job)

    async def _catch_up(self, job: Job) -> None:
        """The store knows better: another was faster, or the answer to a commit was lost."""
        await self._replication.take_up(job.id)
        if self._roster.get(job.id) is job:
            self._roster.drop(job.id)  # it has the version that was refused: look again

    def _lacks_details(self, change: JobChange) -> bool:
        job = change.job
        lacking = {State.COMPLETED: job.results is None, State.FAILED: job.error is None}
        return lacking.get(job.state, False) and self._contract.has(DETAILS)

    async def _with_details(self, observation: Observation) -> Observation:
        """The observation of an end with what only the details carry: results, or the error."""
        details = await self._details(observation.job_id)
        if details is None or details.state is not observation.state:
            return observation
        return replace(
            observation,
            results=details.results if observation.results is None else observation.results,
            error=details.error if observation.error is None else observation.error,
        )

    async def _observe_quietly(self, observation: Observation, source: str) -> None:
        try:
            await self._observe(observation, source)
        except StoreUnavailable as error:
            # The watcher sees the same again at its next poll; nothing is lost by dropping this.
            self._metrics.store_errors_total.labels("jobs").inc()
            self._log.warning("observation_dropped", job_id=observation.job_id, error=error.detail)

    def _note_correction(self, observation: Observation, source: str) -> None:
        """Log and count an answer that was used, but for a part of it that cannot be."""
        if observation.corrected is not None:
            detail = f"{observation.corrected} was put right, the rest is used"
            self.refuse(source, observation.corrected, detail, observation.job_id)

    def _count(self, source: str, result: str) -> None:
        self._metrics.observations_total.labels(source, result).inc()
