"""A change of a job is committed with its events and messages at once, and then told of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from gateway.core.contract import STATUS, Contract
from gateway.core.event import envelope, serialize
from gateway.core.job import Job, JobChange
from gateway.core.outbox import Message
from gateway.core.trace import trace_ids
from gateway.job.meter import Meter
from gateway.job.roster import Roster
from gateway.store.job import JobStore, TimelineEntry
from gateway.telemetry.log import get_logger

_T = TypeVar("_T")
Listener = Callable[[JobChange], Awaitable[None]]


class Subscriber(Protocol):
    """Someone to be told of changes: it says which messages a change makes for it."""

    async def messages(
        self, change: JobChange, envelopes: Sequence[Mapping[str, Any]]
    ) -> Sequence[Message]:
        """The messages to commit with the change; `envelopes` run parallel to its events."""
        ...


class Record:
    """Commits changes; `listeners` hear of each that was.

    `heralds` do before it is, since whoever asks the store reads of it before a listener is told;
    and of those that are not worth it.
    """

    def __init__(
        self,
        store: JobStore,
        roster: Roster,
        meter: Meter,
        contract: Contract,
        subscribers: Sequence[Subscriber],
    ) -> None:
        self.heralds: list[Listener] = []
        self.listeners: list[Listener] = []
        self._store = store
        self._roster = roster
        self._meter = meter
        self._contract = contract
        self._subscribers = subscribers
        self._log = get_logger("job")

    async def commit(self, change: JobChange) -> bool:
        """Record a change with its events and messages; False when the job had moved meanwhile.

        The job's lock is held. Raises `StoreUnavailable`.
        """
        if not change.worth_recording:
            await self._herald(change)
            self._roster.note(change.job)
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
        await self._herald(change)
        return await _whole(self._write(change, timeline, messages))

    async def _write(
        self, change: JobChange, timeline: Sequence[TimelineEntry], messages: Sequence[Message]
    ) -> bool:
        """Commit, and tell of it: nobody else would, of what is in the store already."""
        if not await self._store.record(change, timeline, messages):
            return False
        version = change.before.version + 1 if change.before else 1
        self._roster.put(replace(change.job, version=version))
        await self._announce(change)
        return True

    async def _herald(self, change: JobChange) -> None:
        for herald in self.heralds:
            await herald(change)

    async def _announce(self, change: JobChange) -> None:
        self._log_events(change, change.job)
        self._meter.note(change)
        for listener in self.listeners:
            await listener(change)

    def _log_events(self, change: JobChange, job: Job) -> None:
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
                **trace_ids(job.traceparent),
            )


async def _whole(work: Coroutine[Any, Any, _T]) -> _T:
    """What comes of work that is not left half done: a cancellation waits for its end."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
