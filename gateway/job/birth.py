"""How the gateway comes to know a job: a client created it, or it is adopted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from gateway.core.error import StoreUnavailable
from gateway.core.identifier import ulid
from gateway.core.job import Job, JobChange, Observation, State
from gateway.core.transition import begin, retry_count
from gateway.job.record import Record
from gateway.job.roster import Roster
from gateway.store.job import JobStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

UNKNOWN_OWNER = "unknown"
_RECORD_RETRY_SECONDS = 0.5

Prepare = Callable[[Job], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Creation:
    """What a creation's request says about a job beyond the upstream's answer."""

    owner: str
    request_id: str | None = None
    key: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    webhook_urls: tuple[str, ...] = ()
    webhook_events: tuple[str, ...] = ()


class Births:
    """Records new jobs; `prepare` does what must be done before one is."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        store: JobStore,
        roster: Roster,
        record: Record,
        *,
        prepare: Prepare,
        adopt: bool,
        spawn: Callable[[Awaitable[None]], None],
        metrics: Metrics,
        now: Callable[[], float],
        token: Callable[[int], bytes],
    ) -> None:
        self.adopt = adopt
        self._store = store
        self._roster = roster
        self._record = record
        self._prepare = prepare
        self._spawn = spawn
        self._metrics = metrics
        self._now = now
        self._token = token
        self._creating = 0
        self._closing = asyncio.Event()
        self._log = get_logger("job")

    def close(self) -> None:
        """What cannot be recorded now is given up."""
        self._closing.set()

    def __enter__(self) -> None:
        """While a creation is under way strangers are not adopted."""
        self._creating += 1

    def __exit__(self, *_: object) -> None:
        self._creating -= 1

    async def created(self, observation: Observation, creation: Creation) -> Job:
        """Remember a job that a client created; returns when it is committed.

        While the store is away the job is kept in memory and recorded as soon as it is back.
        """
        try:
            return await self._begin(observation, creation)
        except StoreUnavailable as error:
            self._metrics.store_errors_total.labels("jobs").inc()
            self._log.error("job_not_recorded", job_id=observation.job_id, error=error.detail)
            job = self._born(observation, creation, 0).job
            self._roster.unrecorded[observation.job_id] = job
            self._spawn(self._begin_later(observation, creation))
            return job

    async def adopted(self, observation: Observation, source: str) -> Job | None:
        """Take over a running job that nobody told the gateway of; its lock is held."""
        if not self.adopt or not observation.found or observation.state.terminal:
            return None
        if self._creating or observation.job_id in self._roster.unrecorded:
            return None  # perhaps the very job whose creation is being answered
        change = self._born(observation, Creation(owner=UNKNOWN_OWNER), 0)
        if not await self._record.commit(change):
            return None
        self._log.info("job_adopted", job_id=observation.job_id, source=source)
        return change.job

    async def again(self, known: Job) -> bool:
        """Record a job that the store has lost, as it now stands; its lock is held.

        It is a new incarnation, of the same owner. Raises `StoreUnavailable`.
        """
        observation = Observation(known.id, known.observed_at, state=known.state)
        blank = replace(
            known, incarnation=ulid(self._now(), self._token(10)), version=0, sequence=0
        )
        change = begin(blank, observation, self._now())
        await self._prepare(change.job)
        return await self._record.commit(change)

    async def _begin(self, observation: Observation, creation: Creation) -> Job:
        async with self._roster.lock(observation.job_id):
            known = await self._roster.load(observation.job_id)
            if known is not None:
                return known
            previous = None
            if observation.subject:
                previous = await self._store.latest_of_subject(observation.subject)
            change = self._born(observation, creation, retry_count(previous))
            await self._prepare(change.job)
            if not await self._record.commit(change):
                return await self._store.get(observation.job_id) or change.job
            return change.job

    async def _begin_later(self, observation: Observation, creation: Creation) -> None:
        unrecorded = self._roster.unrecorded
        while observation.job_id in unrecorded:
            with suppress(TimeoutError):
                async with asyncio.timeout(_RECORD_RETRY_SECONDS):
                    await self._closing.wait()
            last = self._closing.is_set()
            try:
                await self._begin(observation, creation)
            except StoreUnavailable as error:
                if not last:
                    continue  # still away: it was logged when it went
                self._log.error("job_given_up", job_id=observation.job_id, error=error.detail)
            unrecorded.pop(observation.job_id, None)

    def _born(self, observation: Observation, creation: Creation, retries: int) -> JobChange:
        # Dated by the observation: recorded later, after an outage, it is the same job, and its
        # callbacks are the same webhooks.
        job = Job(
            id=observation.job_id,
            incarnation=ulid(observation.at, self._token(10)),
            owner=creation.owner,
            upstream=self._roster.instance,
            state=State.QUEUED,
            created_at=observation.at,
            observed_at=observation.at,
            retry_count=retries,
            webhook_urls=creation.webhook_urls,
            webhook_events=creation.webhook_events,
            request_id=creation.request_id,
            key=creation.key,
            traceparent=creation.traceparent,
            tracestate=creation.tracestate,
        )
        return begin(job, observation, self._now())
