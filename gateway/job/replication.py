"""The memory is held against the store: what others recorded there, and what it has lost."""

from __future__ import annotations

from gateway.core.job import EventType, JobChange, JobEvent
from gateway.job.birth import Births
from gateway.job.record import Listener
from gateway.job.roster import Roster
from gateway.store.job import JobStore, TimelineEntry


class Replication:
    """Takes up what other replicas recorded; `listeners` hear of it."""

    def __init__(self, store: JobStore, roster: Roster, births: Births) -> None:
        self.listeners: list[Listener] = []
        self._store = store
        self._roster = roster
        self._births = births

    async def refresh(self, job_id: str, version: int) -> None:
        """Take up what another replica recorded, if it is news here. Raises `StoreUnavailable`."""
        async with self._roster.lock(job_id):
            before = self._roster.get(job_id)
            known = 0 if before is None else before.version
            if known >= version:
                return
            await self.take_up(job_id)

    async def take_up(self, job_id: str) -> None:
        """Take up what the store knows better, and tell of it; the job's lock is held.

        That may be a change of another replica, or one made here whose answer was lost. Raises
        `StoreUnavailable`.
        """
        before = self._roster.get(job_id)
        job = await self._store.get(job_id)
        if job is None or (before is not None and job.version <= before.version):
            return
        entries = await self._store.timeline(job_id, 0 if before is None else before.sequence)
        self._roster.put(job)
        change = JobChange(before, job, tuple(map(_event, entries)))
        for listener in self.listeners:
            await listener(change)

    async def reload(self) -> None:
        """Hold the memory against the store: notices may have been missed.

        Raises `StoreUnavailable`.
        """
        stored = {job.id: job.version for job in await self._store.unfinished()}
        ended = {job.id: job.version + 1 for job in self._roster.jobs}
        for job_id, version in {**ended, **stored}.items():
            await self.refresh(job_id, version)

    async def restore(self) -> int:
        """Record anew the jobs that the store has lost; how many. Raises `StoreUnavailable`.

        Each begins a new incarnation, as it now stands, of the same owner.
        """
        count = 0
        for known in self._roster.jobs:
            async with self._roster.lock(known.id):
                if await self._store.get(known.id) is None:
                    count += await self._births.again(known)
        return count


def _event(entry: TimelineEntry) -> JobEvent:
    """An event as its timeline keeps it; the state before it stands in the envelope alone."""
    return JobEvent(EventType(entry.type), entry.sequence, entry.at, None)
