"""Sending again: one delivery, or everything a webhook missed since a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from gateway.core.error import Conflict, NotFound
from gateway.core.event import serialize
from gateway.core.identifier import derived
from gateway.core.job import EventType, Job
from gateway.core.outbox import DeliveryStatus, Message
from gateway.core.webhook import Webhook, WebhookStatus, passes, project, subscribes
from gateway.delivery.webhook import SINK
from gateway.store.job import JobQuery, JobStore, TimelineEntry
from gateway.store.outbox import DeliveryQuery, Outbox

RECOVERY_PAGES = 10  # of 100 jobs each, in one call
RECOVERY_HORIZON_SECONDS = 7 * 86400.0  # no job is older when something happens to it
_PAGE = 100
_MISSED = (DeliveryStatus.EXHAUSTED, DeliveryStatus.BLOCKED, DeliveryStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class Replay:
    """Enqueues new deliveries of old events, to webhooks that are active (else Conflict).

    `now` gives epoch seconds, `wake` tells the dispatcher. `request_id` is the asking request's.
    """

    outbox: Outbox
    jobs: JobStore
    now: Callable[[], float]
    wake: Callable[[], None]

    async def redeliver(
        self, webhook: Webhook, delivery_id: str, request_id: str | None = None
    ) -> Message:
        """Send one delivery again: its event's id and its bytes, as a delivery of its own.

        Raises NotFound, and Conflict while it has not ended or when its bytes are kept nowhere.
        """
        delivery = await self.outbox.get(delivery_id)
        if delivery is None or (delivery.message.sink, delivery.message.destination) != (
            SINK,
            webhook.id,
        ):
            raise NotFound(f"There is no delivery {delivery_id} to this webhook.")
        require_active(webhook)
        old = delivery.message
        if not old.status.final:
            raise Conflict(f"The delivery is still {old.status.value}; it will be tried by itself.")
        now = self.now()
        message = replace(
            old.again(derived("dlv_", now, old.event_id, webhook.id, old.id), now),
            body=old.body or await self._recorded(webhook, old),
            request_id=request_id,
        )
        await self.enqueue([message])
        return message

    async def recover(
        self,
        webhook: Webhook,
        since: float,
        cursor: str | None = None,
        request_id: str | None = None,
    ) -> tuple[int, str | None]:
        """Send again what was missed since then (epoch seconds): how many, and where to go on.

        That is: exhausted, blocked, skipped, or never queued because the webhook was paused or
        disabled. Progress is left out: later events replace it.
        """
        require_active(webhook)
        since = max(since, webhook.created_at)
        recovered = 0
        jobs, cursor = await self._jobs_since(webhook, since, cursor)
        for job in jobs:
            messages = [
                self._again(webhook, job.id, entry, message_id, request_id)
                async for entry, message_id in self._missed(webhook, job, since)
            ]
            await self.enqueue(messages)
            recovered += len(messages)
        return recovered, cursor

    async def job(self, webhook: Webhook, job: Job, kind: EventType | None = None) -> int:
        """Send a job's events again, of one kind or all that the webhook takes; how many.

        Raises Conflict when it takes none of them.
        """
        require_active(webhook)
        now = self.now()
        messages = [
            self._again(webhook, job.id, entry, _told_again(now, entry, webhook), None)
            for entry in await self.jobs.timeline(job.id)
            if kind in (None, entry.type)
            and subscribes(webhook, job.owner, job.id, entry.type)
            and _passes(webhook, entry)
        ]
        if not messages:
            raise Conflict(
                "The webhook takes none of these events: it is another owner's or another job's, "
                "or its events or its filter leave them out."
            )
        await self.enqueue(messages)
        return len(messages)

    async def enqueue(self, messages: Sequence[Message]) -> None:
        """Add messages, and have them looked at."""
        if messages:
            await self.outbox.enqueue(messages)
            self.wake()

    async def _recorded(self, webhook: Webhook, old: Message) -> bytes:
        """What a delivery carried whose own bytes are dropped, by its job's record."""
        entries = await self.jobs.timeline(old.job_id, old.sequence - 1)
        if not entries or entries[0].event_id != old.event_id:
            raise Conflict(
                "What this delivery carried is no longer kept; POST …/test sends a test event."
            )
        return _body(webhook, entries[0])

    async def _jobs_since(
        self, webhook: Webhook, since: float, cursor: str | None
    ) -> tuple[Sequence[Job], str | None]:
        """Jobs with events since then, newest first, and where a further request takes up."""
        if webhook.job_id is not None:
            job = await self.jobs.get(webhook.job_id)
            return ([job] if job else []), None
        owner = None if webhook.all_owners else webhook.owner
        found: list[Job] = []
        for _ in range(RECOVERY_PAGES):
            page, cursor = await self.jobs.list(
                JobQuery(
                    owner=owner,
                    since=since - RECOVERY_HORIZON_SECONDS,
                    cursor=cursor,
                    limit=_PAGE,
                )
            )
            found += [job for job in page if job.finished_at is None or job.finished_at >= since]
            if cursor is None:
                break
        return found, cursor

    async def _missed(
        self, webhook: Webhook, job: Job, since: float
    ) -> AsyncIterator[tuple[TimelineEntry, str]]:
        """Events of a job that the webhook wants and lacks, each with its new delivery's id.

        The id derives from what failed: asked twice at once, an event still goes out once.
        """
        entries = [
            entry
            for entry in await self.jobs.timeline(job.id)
            if entry.at >= since
            and entry.type != EventType.PROGRESS
            and subscribes(webhook, job.owner, job.id, entry.type)
        ]
        latest = await self._latest(webhook, job.id) if entries else {}
        for entry in entries:
            last = latest.get(entry.event_id)
            if last is not None and last.status not in _MISSED:
                continue
            if not _passes(webhook, entry):
                continue
            if last is None:
                yield entry, derived("dlv_", entry.at, entry.event_id, webhook.id)
            else:
                yield entry, derived("dlv_", last.created_at, entry.event_id, webhook.id, last.id)

    async def _latest(self, webhook: Webhook, job_id: str) -> Mapping[str, Message]:
        """The newest delivery of each of a job's events to this webhook."""
        latest: dict[str, Message] = {}
        cursor = None
        while True:
            page, cursor = await self.outbox.deliveries(
                DeliveryQuery(webhook.id, job_id=job_id, cursor=cursor, limit=_PAGE)
            )
            for delivery in page:
                message = delivery.message
                known = latest.get(message.event_id)
                if known is None or known.created_at < message.created_at:
                    latest[message.event_id] = message
            if cursor is None:
                return latest

    def _again(
        self,
        webhook: Webhook,
        job_id: str,
        entry: TimelineEntry,
        message_id: str,
        request_id: str | None,
    ) -> Message:
        """A new delivery of an old event: its own id, the event's id and body as they were."""
        now = self.now()
        return Message(
            id=message_id,
            sink=SINK,
            destination=webhook.id,
            kind=entry.type,
            event_id=entry.event_id,
            job_id=job_id,
            sequence=entry.sequence,
            body=_body(webhook, entry),
            created_at=now,
            due_at=now,
            request_id=request_id,
        )


def require_active(webhook: Webhook) -> None:
    """Raise Conflict unless something may be sent to it."""
    if webhook.status is not WebhookStatus.ACTIVE:
        raise Conflict(
            f"The webhook is {webhook.status.value}, so nothing is sent to it; "
            'activate it with PATCH {"status": "active"} first.'
        )


def _told_again(now: float, entry: TimelineEntry, webhook: Webhook) -> str:
    return derived("dlv_", now, entry.event_id, webhook.id, "again")


def _body(webhook: Webhook, entry: TimelineEntry) -> bytes:
    if webhook.fields is None:
        return entry.body
    return serialize(project(webhook, orjson.loads(entry.body)))


def _passes(webhook: Webhook, entry: TimelineEntry) -> bool:
    try:
        return passes(webhook, orjson.loads(entry.body))
    except ValueError:  # the event was not sent for this very reason
        return False
