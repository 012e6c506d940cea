"""Jobs, messages and webhooks for the tests of stores, and the stores of one backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.core.event import envelope, event_id, serialize
from gateway.core.identifier import derived
from gateway.core.job import Job, JobChange, Observation, State
from gateway.core.outbox import Attempt, Claim, Message
from gateway.core.transition import WatchRule, advance, begin
from gateway.core.webhook import Webhook
from gateway.store.audit import AuditLog
from gateway.store.job import JobStore, TimelineEntry
from gateway.store.outbox import Outbox
from gateway.store.webhook import WebhookStore

NOW = 1_700_000_000.0
EVERY_PERCENT = WatchRule(progress_step=1.0)


@dataclass(frozen=True, slots=True)
class Stores:
    """What one backend offers."""

    jobs: JobStore
    outbox: Outbox
    webhooks: WebhookStore
    audit: AuditLog


def new_job(job_id: str = "job-1", at: float = NOW, **fields: Any) -> JobChange:
    """A job's first change; `fields` override those of the job."""
    owner, upstream = fields.pop("owner", "alice"), fields.pop("upstream", "one")
    blank = Job(job_id, "inc-1", owner, upstream, State.QUEUED, at, at)
    seen = Observation(job_id, at, state=fields.pop("state", State.QUEUED))
    return begin(replace(blank, **fields), seen, at)


def next_change(job: Job, at: float, **seen: Any) -> JobChange:
    """The change that an observation makes to a stored job."""
    change = advance(job, Observation(job.id, at, **seen), at, EVERY_PERCENT)
    assert change is not None
    return change


def timeline_of(change: JobChange) -> Sequence[TimelineEntry]:
    """The change's events as the tracker records them."""
    return [
        TimelineEntry(
            event.sequence,
            event.type.value,
            event.at,
            event_id(change.job, event),
            serialize(envelope(change.job, event, None)),
        )
        for event in change.events
    ]


def messages_of(change: JobChange, destination: str = "wh_1") -> Sequence[Message]:
    """One message an event, as a subscriber makes them."""
    return [
        message(
            entry.sequence,
            destination=destination,
            job_id=change.job.id,
            kind=entry.type,
            at=entry.at,
            event_id=entry.event_id,
            body=entry.body,
            replaceable=entry.type == "job.progress",
            supersedes=True,
        )
        for entry in timeline_of(change)
    ]


def message(
    sequence: int = 1,
    *,
    destination: str = "wh_1",
    job_id: str = "job-1",
    at: float = NOW,
    **fields: Any,
) -> Message:
    """A message due at once; its id follows from its event and destination."""
    event = fields.pop("event_id", f"evt-{job_id}-{sequence}")
    values: dict[str, Any] = {
        "id": derived("dlv_", at, event, destination),
        "sink": "webhook",
        "destination": destination,
        "kind": "job.progress",
        "event_id": event,
        "job_id": job_id,
        "sequence": sequence,
        "body": b'{"sequence":%d}' % sequence,
        "created_at": at,
        "due_at": at,
    }
    return Message(**(values | fields))


def attempt_at(claim: Claim[Message], at: float, **fields: Any) -> Attempt:
    """The log line of the attempt that a claim allows."""
    return Attempt(claim.item.id, claim.item.attempt, at, 0.25, **fields)


def webhook(number: int = 1, **fields: Any) -> Webhook:
    """An active webhook of `alice`."""
    values: dict[str, Any] = {
        "id": f"wh_{number}",
        "owner": "alice",
        "url": f"https://receiver.example/{number}",
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "created_at": NOW + number,
        "updated_at": NOW + number,
    }
    return Webhook(**(values | fields))
