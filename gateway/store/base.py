"""What the rest of the gateway asks of its stores; every backend passes the same contract suite.

Times are epoch seconds. Every method raises `gateway.core.error.StoreUnavailable` when the backend
does not answer; none raises anything else for a condition of the backend.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.audit import AuditEntry
from gateway.core.freshness import StoredResponse
from gateway.core.job import Job, JobChange, State
from gateway.core.outbox import Attempt, Backlog, Claim, Delivery, DeliveryStatus, Message
from gateway.core.retry import Verdict
from gateway.core.webhook import Webhook, WebhookStatus
from gateway.core.window import Hit, WindowState


class WindowStore(Protocol):
    """Sliding windows of rate limits."""

    async def hit(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        """Decide all limits of a request in one atomic step: all admit and count, or none does."""
        ...


class ResponseStore(Protocol):
    """Cached responses.

    Each has one tag, by which it is purged; its key is told apart within that tag, and its variant
    (`vary`) within the key.
    """

    def peek(self, tag: str, key: str) -> Sequence[StoredResponse] | None:
        """What `lookup` would find, where that is known without waiting; None where it is not."""
        ...

    async def lookup(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """The stored variants of a key, newest first."""
        ...

    async def store(self, tag: str, key: str, response: StoredResponse) -> None:
        """Keep a variant; others may be evicted to stay within the bound."""
        ...

    async def purge(self, tag: str) -> int:
        """Forget every response with this tag; how many there were."""
        ...

    async def expire(self, tag: str, now: float) -> int:
        """Keep every response with this tag, but as stale from `now` on; how many there are."""
        ...


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

    async def renew(self, claim: Claim[Job], lease_until: float) -> bool:
        """Keep a claim; False when it was lost to another."""
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

    async def timeline(self, job_id: str, after_sequence: int = 0) -> Sequence[TimelineEntry]:
        """The job's events in order."""
        ...

    async def count_by_state(self) -> Mapping[State, int]:
        """How many jobs stand in each state."""
        ...

    async def prune(self, before: float) -> int:
        """Delete jobs that ended before, and their timelines; how many."""
        ...


class Replicas(Protocol):
    """Signs of life, where many replicas share a store."""

    async def beat(self, replica: str, instance: str, now: float, until: float) -> int:
        """Live until then, and the upstream instance with it; how many replicas live."""
        ...

    async def leave(self, replica: str) -> None:
        """Live no more."""
        ...

    async def expect(self, instances: Collection[str], until: float) -> None:
        """Take those of which nothing is known to live until then."""
        ...

    async def gone(self, before: float) -> Sequence[str]:
        """The upstream instances whose last sign of life ended before."""
        ...


@dataclass(frozen=True, slots=True)
class DeliveryQuery:
    """Which deliveries a log page shows, newest first; None means any. `cursor` is opaque."""

    destination: str
    status: DeliveryStatus | None = None
    kind: str | None = None
    job_id: str | None = None
    cursor: str | None = None
    limit: int = 50


class Outbox(Protocol):
    """Messages waiting to be delivered, and the log of deliveries."""

    async def enqueue(self, messages: Sequence[Message]) -> None:
        """Add messages that belong to no job change; an id already there is left as it is."""
        ...

    async def claim(
        self,
        sink: str,
        limit: int,
        now: float,
        lease_seconds: float,
        *,
        share: int = 4,
        busy: Collection[str] = (),
    ) -> Sequence[Claim[Message]]:
        """Claim due messages of a sink, oldest first, keeping the order rules of `Message`.

        At most `share` are of one destination; those in `busy` are passed over. A message whose
        lease ran out is due again: the claim counts as an attempt made when it was handed out, so
        `item.attempt` is the number (from 1) of the attempt now to be made.
        """
        ...

    async def settle(
        self, claim: Claim[Message], verdict: Verdict, attempt: Attempt, now: float
    ) -> bool:
        """Record an attempt and its verdict; False, and nothing written, if the lease was lost.

        Whatever ends a delivery to a webhook (here, `cancel`, or a later message that supersedes
        it) adds its line to the `AuditLog`, in the same transaction.
        """
        ...

    async def next_due_at(self, sink: str) -> float | None:
        """When the earliest waiting message is due (a lease's end counts)."""
        ...

    async def deliveries(self, query: DeliveryQuery) -> tuple[Sequence[Delivery], str | None]:
        """A page of the delivery log with attempts, and the next page's cursor."""
        ...

    async def get(self, message_id: str) -> Delivery | None:
        """One delivery with its attempts."""
        ...

    async def backlog(self) -> Sequence[Backlog]:
        """What waits, a line each sink."""
        ...

    async def cancel(self, destination: str, now: float) -> int:
        """Mark everything waiting for a destination cancelled (it was deleted); how many."""
        ...

    async def drop_payloads(self, before: float) -> int:
        """Forget the bodies of deliveries that finished before; how many. Their log stays."""
        ...

    async def prune(self, before: float) -> int:
        """Delete ended deliveries and their attempts that finished before; how many."""
        ...


@dataclass(frozen=True, slots=True)
class WebhookQuery:
    """Which webhooks a page shows, oldest first; None means any. `cursor` is opaque.

    Without a `job_id` these are the general ones; with one, the callbacks of that job.
    """

    owner: str | None = None
    job_id: str | None = None
    status: WebhookStatus | None = None
    cursor: str | None = None
    limit: int = 50


class WebhookStore(Protocol):
    """Webhook subscriptions. An `entry` is added to the audit log together with the change."""

    async def add(self, webhook: Webhook, entry: AuditEntry | None = None) -> bool:
        """Insert; False when the id is there already."""
        ...

    async def get(self, webhook_id: str) -> Webhook | None:
        """One webhook."""
        ...

    async def replace(
        self, webhook: Webhook, revision: int, entry: AuditEntry | None = None
    ) -> bool:
        """Store it if the stored revision equals `revision`; False when it changed or is gone.

        What the store counts (`consecutive_failures` and the fields after it) stays as stored, but
        for a disabled webhook that is no longer: its counts of failures begin anew.
        """
        ...

    async def delete(self, webhook_id: str, entry: AuditEntry | None = None) -> bool:
        """Remove; False when there is none."""
        ...

    async def list(self, query: WebhookQuery) -> tuple[Sequence[Webhook], str | None]:
        """A page of webhooks and the next page's cursor."""
        ...

    async def candidates(self, owner: str, job_id: str) -> Sequence[Webhook]:
        """Every active webhook that may want events of this owner's job."""
        ...

    async def count(self, owner: str) -> int:
        """How many an owner has, per-job ones apart."""
        ...

    async def note_outcome(
        self,
        webhook_id: str,
        ok: bool,  # noqa: FBT001 - it is the outcome
        now: float,
        *,
        exhausted: bool = False,
    ) -> Webhook | None:
        """Count a failure, or reset the counts and remember the success; the webhook after that.

        `exhausted`: the failure was the delivery's last attempt. None when the webhook is gone.
        """
        ...

    async def disable(
        self, webhook_id: str, reason: str, now: float, entry: AuditEntry | None = None
    ) -> bool:
        """Disable it, saying why; False when it was not active."""
        ...

    async def prune(self, before: float, now: float) -> int:
        """Delete the callbacks of jobs that ended before, and of none; how many.

        Each leaves a line in the audit log.
        """
        ...


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which lines a page of the audit log shows, newest first; None means any.

    `action` is exact, or a family such as `webhook.*`. `cursor` is opaque.
    """

    webhook_id: str | None = None
    action: str | None = None
    since: float | None = None
    until: float | None = None
    cursor: str | None = None
    limit: int = 50


class AuditLog(Protocol):
    """What was done to webhooks, and how deliveries ended; lines are added, never changed."""

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Add lines that belong to no change of a webhook."""
        ...

    async def list(self, query: AuditQuery) -> tuple[Sequence[AuditEntry], str | None]:
        """A page of lines and the next page's cursor."""
        ...

    async def prune(self, before: float) -> int:
        """Delete lines from before; how many. The last day's are refused to any caller."""
        ...
