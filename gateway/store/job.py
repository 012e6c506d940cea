"""What the gateway asks of a store of jobs; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.job import Job, JobChange, State
from gateway.core.outbox import Claim, Message


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One recorded event of a job; `body` is the full envelope as JSON."""

    sequence: int
    type: str
    at: float
    event_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs a history page shows, newest first; None means any. `cursor` is opaque."""

    owner: str | None = None
    state: State | None = None
    subject: str | None = None
    since: float | None = None
    until: float | None = None
    cursor: str | None = None
    limit: int = 50


class JobStore(Protocol):
    """Jobs, their timelines, and who watches which."""

    async def record(
        self, change: JobChange, timeline: Sequence[TimelineEntry], messages: Sequence[Message]
    ) -> bool:
        """Commit the job's new state, its events and their messages in ONE transaction.

        `change.before` None inserts; otherwise the stored version must equal
        `change.before.version`, and the stored job becomes `change.job` with version + 1. A
        superseding message marks the waiting replaceable ones of its (destination, job) superseded.
        A terminal job is no longer due. False, and nothing written, when the job exists already or
        the version is stale.
        """
        ...

    async def get(self, job_id: str) -> Job | None:
        """The job, with its stored version."""
        ...

    async def latest_of_subject(self, subject: str) -> Job | None:
        """The newest job about a subject."""
        ...

    async def claim_due(
        self, upstream: str | None, limit: int, now: float, lease_seconds: float
    ) -> Sequence[Claim[Job]]:
        """Claim unfinished jobs that are due and not leased; `upstream` None: any instance's."""
        ...

    async def renew(self, claims: Sequence[Claim[Job]], lease_until: float) -> Collection[str]:
        """Keep these claims; the ids of the jobs whose claim was not lost to another."""
        ...

    async def release(self, claim: Claim[Job], due_at: float) -> bool:
        """Give a claim back, to be due again at `due_at`; False when it was lost to another."""
        ...

    async def unfinished(self) -> Sequence[Job]:
        """Every job that has not ended, oldest first."""
        ...

    async def void_leases(self) -> int:
        """Make every claim, of jobs and of messages, void; how many there were.

        For the only process of an exclusive store, at its start.
        """
        ...

    async def list(self, query: JobQuery) -> tuple[Sequence[Job], str | None]:
        """A page of jobs, newest first, and the next page's cursor."""
        ...

    async def timeline(
        self, job_id: str, after_sequence: int = 0, limit: int | None = None
    ) -> Sequence[TimelineEntry]:
        """The job's events in order, at most `limit` of them."""
        ...

    async def prune(self, before: float) -> int:
        """Delete jobs that ended before, and their timelines; how many."""
        ...
