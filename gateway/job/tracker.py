"""The one place where observations become recorded changes of jobs.

Whatever is seen of a job — its creation, a client's poll, the watcher's stream — comes here, is
applied under the job's lock by `core.job`, and is committed with its events and messages at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol
from weakref import WeakValueDictionary

from gateway.core.contract import DETAILS, STATUS, Contract
from gateway.core.error import StoreUnavailable
from gateway.core.event import envelope, serialize
from gateway.core.identifier import ulid
from gateway.core.job import (
    EventType,
    Job,
    JobChange,
    JobEvent,
    Observation,
    State,
    WatchRule,
    abandon,
    advance,
    begin,
    expire,
    retry_count,
)
from gateway.core.outbox import Message
from gateway.store.job import JobQuery, JobStore, TimelineEntry
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics, error_type_label

UNKNOWN_OWNER = "unknown"
_RECORD_RETRY_SECONDS = 0.5
_DURATIONS = 256  # kept to judge how long jobs take
_TAKEN_UP = 100  # of them, from the store at the start


class Subscriber(Protocol):
    """Someone to be told of changes: it says which messages a change makes for it."""

    async def messages(
        self, change: JobChange, envelopes: Sequence[Mapping[str, Any]]
    ) -> Sequence[Message]:
        """The messages to commit with the change; `envelopes` run parallel to its events."""
        ...


@dataclass(frozen=True, slots=True)
class Creation:
    """What a creation's request says about a job beyond the upstream's answer."""

    owner: str
    request_id: str | None = None
    key: str | None = None
    traceparent: str | None = None
    webhook_urls: tuple[str, ...] = ()
    webhook_events: tuple[str, ...] = ()


Details = Callable[[str], Awaitable[Observation | None]]
Listener = Callable[[JobChange], Awaitable[None]]


class Tracker:
    """Knows every unfinished job in memory and records what changes.

    `own_only`: each replica has an upstream of its own, `instance`, and what that says of other
    instances' jobs is nothing. `listeners` hear of the changes recorded here, `listeners_elsewhere`
    of those that another replica recorded; `heralds` of a change before it is committed here, since
    whoever asks the store reads of it before a listener is told.
    """

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        jobs: JobStore,
        contract: Contract,
        rule: WatchRule,
        subscribers: Sequence[Subscriber],
        prepare: Callable[[Job], Awaitable[None]],
        details: Details,
        instance: str,
        own_only: bool = False,
        adopt: bool,
        metrics: Metrics,
        now: Callable[[], float],
        token: Callable[[int], bytes],
    ) -> None:
        self._store = jobs
        self._contract = contract
        self._rule = rule
        self._subscribers = subscribers
        self._prepare = prepare
        self._details = details
        self._instance = instance
        self._own_only = own_only
        self._adopt = adopt
        self._metrics = metrics
        self._now = now
        self._token = token
        self._log = get_logger("job")
        self._jobs: dict[str, Job] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._creating = 0
        self._unrecorded: dict[str, Job] = {}
        self._closing = asyncio.Event()
        self.heralds: list[Listener] = []
        self.listeners: list[Listener] = []
        self.listeners_elsewhere: list[Listener] = []
        # How long the jobs that ended last took, in seconds.
        self.durations: deque[float] = deque(maxlen=_DURATIONS)

    @property
    def upstreams(self) -> frozenset[str]:
        """The instances that have jobs which have not ended."""
        return frozenset(job.upstream for job in self._jobs.values())

    @property
    def store(self) -> JobStore:
        """Where the jobs are."""
        return self._store

    async def open(self) -> None:
        """Take up every unfinished job of the store, and how long the latest ones took."""
        for job in await self._store.unfinished():
            self._jobs[job.id] = job
        completed, _ = await self._store.list(JobQuery(state=State.COMPLETED, limit=_TAKEN_UP))
        self.durations.extend(
            job.finished_at - job.created_at
            for job in reversed(completed)
            if job.finished_at is not None
        )
        self._metrics.jobs_active.set(len(self._jobs))

    async def close(self) -> None:
        """Wait for observations under way; a creation that cannot be recorded is given up."""
        self._closing.set()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def active(self, job_id: str) -> Job | None:
        """An unfinished job as last known, from memory."""
        return self._jobs.get(job_id)

    @property
    def active_count(self) -> int:
        """How many jobs have not ended, those that could not be recorded yet among them.

        With `own_only`, of this instance's.
        """
        if self._own_only:
            return len(self.active_jobs)
        return len(self._jobs) + sum(job_id not in self._jobs for job_id in self._unrecorded)

    @property
    def active_jobs(self) -> Sequence[Job]:
        """Those jobs."""
        jobs = (self._unrecorded | self._jobs).values()
        return [job for job in jobs if not self._own_only or job.upstream == self._instance]

    def creating(self) -> _Creating:
        """A context for the time a creation is under way: strangers are not adopted meanwhile."""
        return _Creating(self)

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
            self._unrecorded[observation.job_id] = job
            self._spawn(self._begin_later(observation, creation))
            return job

    def offer(self, observation: Observation, source: str) -> None:
        """Take an observation from clients' traffic; what changes nothing costs no task."""
        self._note_correction(observation, source)
        job = self._jobs.get(observation.job_id)
        if job is None:
            # A stranger, or long ended. Only what is still going on is worth a look at the store.
            if self._adopt and observation.found and not observation.state.terminal:
                self._spawn(self._observe_quietly(observation, source))
            return
        if self._is_foreign(job):
            return
        change = advance(job, observation, self._now(), self._rule)
        if change is None:
            self._count(source, "stale")
        elif not change.worth_recording and not self._locked(job.id):
            self._jobs[job.id] = change.job
            self._count(source, "unchanged")
        else:
            self._spawn(self._observe_quietly(observation, source))

    async def observe(self, observation: Observation, source: str) -> Job | None:
        """Apply an observation and commit what it changes; the job afterwards, None if unknown.

        Raises `StoreUnavailable`; the observation is then made again at the next poll.
        """
        self._note_correction(observation, source)
        return await self._observe(observation, source)

    async def _observe(self, observation: Observation, source: str) -> Job | None:
        async with self._lock(observation.job_id):
            while True:
                job = await self._load(observation.job_id)
                if job is None:
                    return await self._adopted(observation, source)
                if self._is_foreign(job):
                    return job
                change = advance(job, observation, self._now(), self._rule)
                if change is None:
                    self._count(source, "stale")
                    return job
                if self._lacks_details(change):
                    observation = await self._with_details(observation)
                    change = advance(job, observation, self._now(), self._rule) or change
                if await self._commit(change):
                    self._count(source, "changed" if change.events else "unchanged")
                    return change.job
                self._jobs.pop(job.id, None)  # another replica was faster: look again

    async def expire(self, job_id: str) -> Job | None:
        """Apply the mere passing of time; the job afterwards, None if unknown."""
        return await self._apply(job_id, lambda job: expire(job, self._now(), self._rule))

    async def lose(self, job_id: str) -> Job | None:
        """End a job whose upstream instance is gone; the job afterwards, None if unknown."""
        return await self._apply(job_id, lambda job: abandon(job, self._now()))

    async def refresh(self, job_id: str, version: int) -> None:
        """Take up what another replica recorded, if it is news here. Raises `StoreUnavailable`."""
        async with self._lock(job_id):
            before = self._jobs.get(job_id)
            known = 0 if before is None else before.version
            if known >= version:
                return
            job = await self._store.get(job_id)
            if job is None or job.version <= known:
                return
            entries = await self._store.timeline(job_id, 0 if before is None else before.sequence)
            self._remember(job)
            change = JobChange(before, job, tuple(map(_event, entries)))
            for listener in self.listeners_elsewhere:
                await listener(change)

    async def reload(self) -> None:
        """Hold the memory against the store: notices may have been missed.

        Raises `StoreUnavailable`.
        """
        stored = {job.id: job.version for job in await self._store.unfinished()}
        ended = {job_id: job.version + 1 for job_id, job in self._jobs.items()}
        for job_id, version in {**ended, **stored}.items():
            await self.refresh(job_id, version)

    async def restore(self) -> int:
        """Record anew the jobs that the store has lost; how many. Raises `StoreUnavailable`.

        Each begins a new incarnation, as it now stands, of the same owner.
        """
        count = 0
        for known in list(self._jobs.values()):
            async with self._lock(known.id):
                if await self._store.get(known.id) is not None:
                    continue
                observation = Observation(known.id, known.observed_at, state=known.state)
                blank = replace(
                    known, incarnation=ulid(self._now(), self._token(10)), version=0, sequence=0
                )
                change = begin(blank, observation, self._now())
                await self._prepare(change.job)
                count += await self._commit(change)
        return count

    async def _apply(self, job_id: str, change_of: Callable[[Job], JobChange | None]) -> Job | None:
        async with self._lock(job_id):
            while True:
                job = await self._load(job_id)
                if job is None:
                    return None
                change = change_of(job)
                if change is None or await self._commit(change):
                    return change.job if change else job
                self._jobs.pop(job_id, None)

    def _is_foreign(self, job: Job) -> bool:
        """True when this replica's upstream knows nothing of the job."""
        return self._own_only and job.upstream != self._instance

    def _note_correction(self, observation: Observation, source: str) -> None:
        """Log and count an answer that was used, but for a part of it that cannot be."""
        if observation.corrected is not None:
            detail = f"{observation.corrected} was put right, the rest is used"
            self.refuse(source, observation.corrected, detail, observation.job_id)

    def refuse(self, source: str, reason: str, detail: str, job_id: str | None) -> None:
        """Log and count an answer, or a part of one, that cannot be used; the job is followed."""
        self._metrics.observations_refused_total.labels(reason).inc()
        self._log.warning(
            "observation_refused", source=source, reason=reason, detail=detail, job_id=job_id
        )

    async def _begin(self, observation: Observation, creation: Creation) -> Job:
        async with self._lock(observation.job_id):
            known = await self._load(observation.job_id)
            if known is not None:
                return known
            previous = None
            if observation.subject:
                previous = await self._store.latest_of_subject(observation.subject)
            change = self._born(observation, creation, retry_count(previous))
            await self._prepare(change.job)
            if not await self._commit(change):
                return await self._store.get(observation.job_id) or change.job
            return change.job

    async def _begin_later(self, observation: Observation, creation: Creation) -> None:
        while observation.job_id in self._unrecorded:
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
            self._unrecorded.pop(observation.job_id, None)

    def _born(self, observation: Observation, creation: Creation, retries: int) -> JobChange:
        # Dated by the observation: recorded later, after an outage, it is the same job, and its
        # callbacks are the same webhooks.
        job = Job(
            id=observation.job_id,
            incarnation=ulid(observation.at, self._token(10)),
            owner=creation.owner,
            upstream=self._instance,
            state=State.QUEUED,
            created_at=observation.at,
            observed_at=observation.at,
            retry_count=retries,
            webhook_urls=creation.webhook_urls,
            webhook_events=creation.webhook_events,
            request_id=creation.request_id,
            key=creation.key,
            traceparent=creation.traceparent,
        )
        return begin(job, observation, self._now())

    async def _adopted(self, observation: Observation, source: str) -> Job | None:
        """Take over a running job that nobody told the gateway of."""
        if not self._adopt or not observation.found or observation.state.terminal:
            return None
        if self._creating or observation.job_id in self._unrecorded:
            return None  # perhaps the very job whose creation is being answered
        change = self._born(observation, Creation(owner=UNKNOWN_OWNER), 0)
        if not await self._commit(change):
            return None
        self._log.info("job_adopted", job_id=observation.job_id, source=source)
        return change.job

    async def _load(self, job_id: str) -> Job | None:
        job = self._jobs.get(job_id)
        if job is None:
            job = await self._store.get(job_id)
            if job is not None and not job.state.terminal:
                self._jobs[job_id] = job
        return job

    async def _commit(self, change: JobChange) -> bool:
        """Record a change with its events and messages; False when the job had moved meanwhile."""
        if not change.worth_recording:
            self._jobs[change.job.id] = change.job
            return True
        job = change.job
        status_url = self._contract.path(STATUS, job.id)
        envelopes = [envelope(job, event, status_url) for event in change.events]
        timeline = [
            TimelineEntry(event.sequence, event.type.value, event.at, document["id"], body)
            for event, document in zip(change.events, envelopes, strict=True)
            for body in (serialize(document),)
        ]
        messages: list[Message] = []
        if change.events:
            for subscriber in self._subscribers:
                messages.extend(await subscriber.messages(change, envelopes))
        for herald in self.heralds:
            await herald(change)
        if not await self._store.record(change, timeline, messages):
            return False
        version = change.before.version + 1 if change.before else 1
        self._remember(replace(job, version=version))
        await self._announce(change)
        return True

    def _remember(self, job: Job) -> None:
        if job.state.terminal:
            self._jobs.pop(job.id, None)
        else:
            self._jobs[job.id] = job
        self._metrics.jobs_active.set(len(self._jobs))

    async def _announce(self, change: JobChange) -> None:
        job = change.job
        for event in change.events:
            self._log.info(
                "job_transition",
                job_id=job.id,
                type=event.type.value,
                sequence=event.sequence,
                state=job.state.value,
                stage=job.stage,
                progress=job.percentage,
                request_id=job.request_id,
            )
        self._measure(change)
        for listener in self.listeners:
            await listener(change)

    def _measure(self, change: JobChange) -> None:
        metrics, before, job = self._metrics, change.before, change.job
        if before is None:
            metrics.jobs_created_total.inc()
        known = before.stage_seconds if before else {}
        for stage, spent in job.stage_seconds.items():
            if spent > known.get(stage, 0.0):
                label = metrics.stage_label(stage)
                metrics.job_stage_seconds.labels(label).observe(spent - known.get(stage, 0.0))
        match job.state:
            case State.COMPLETED:
                metrics.jobs_completed_total.inc()
            case State.FAILED:
                error = job.error or {}
                metrics.jobs_failed_total.labels(error_type_label(error.get("error_type"))).inc()
            case State.CANCELLED:
                metrics.jobs_cancelled_total.inc()
        if job.finished_at is not None:
            took = job.finished_at - job.created_at
            metrics.job_processing_seconds.observe(took)
            self.durations.append(took)

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

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lock(self, job_id: str) -> asyncio.Lock:
        return self._locks.setdefault(job_id, asyncio.Lock())

    def _locked(self, job_id: str) -> bool:
        lock = self._locks.get(job_id)
        return lock is not None and lock.locked()

    def _count(self, source: str, result: str) -> None:
        self._metrics.observations_total.labels(source, result).inc()


def _event(entry: TimelineEntry) -> JobEvent:
    """An event as its timeline keeps it; the state before it stands in the envelope alone."""
    return JobEvent(EventType(entry.type), entry.sequence, entry.at, None)


class _Creating:
    """Counts creations under way."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def __enter__(self) -> None:
        self._tracker._creating += 1  # noqa: SLF001 - the tracker's own context

    def __exit__(self, *_: object) -> None:
        self._tracker._creating -= 1  # noqa: SLF001 - as above
