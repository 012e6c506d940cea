"""The deliveries of one webhook: its log, a test, and sending again what it missed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import orjson

from gateway.core.audit import Change
from gateway.core.error import Conflict, NotFound
from gateway.core.event import serialize
from gateway.core.identifier import derived, ulid
from gateway.core.job import EventType, Job
from gateway.core.message import Request, Response
from gateway.core.outbox import DeliveryStatus, Message
from gateway.core.webhook import Webhook, WebhookStatus, passes, project, subscribes
from gateway.delivery.webhook import SINK
from gateway.store.base import DeliveryQuery, JobQuery, JobStore, Outbox, TimelineEntry
from gateway.web.document import json_response, read_object
from gateway.web.query import MAX_LIMIT, Query
from gateway.web.webhook_document import encode_delivery
from gateway.web.webhook_input import read_recovery, read_test
from gateway.web.webhook_sample import TEST_EVENT, probe_envelope

RECOVERY_PAGES = 10  # of 100 jobs each, in one request
RECOVERY_HORIZON_SECONDS = 7 * 86400.0  # no job is older when something happens to it
_MISSED = (DeliveryStatus.EXHAUSTED, DeliveryStatus.BLOCKED, DeliveryStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class Done:
    """The response to an action, and the audited change with its details if it made one."""

    response: Response
    change: Change | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


Action = Callable[[Webhook, Request], Awaitable[Done]]
"""Answers for a webhook."""

KINDS = (*(kind.value for kind in EventType), TEST_EVENT)


@dataclass(frozen=True, slots=True)
class DeliveryApi:
    """Answers what lies below one webhook; `now`, `token` and `wake` as in `WebhookApi`."""

    outbox: Outbox
    jobs: JobStore
    now: Callable[[], float]
    token: Callable[[int], bytes]
    wake: Callable[[], None]

    def methods(self, segments: tuple[str, ...]) -> Mapping[str, Action]:
        """The methods of the resource at these segments below a webhook; none: no resource."""
        match segments:
            case ("logs",):
                return {"GET": self._logs}
            case ("test",):
                return {"POST": self._test}
            case ("recover",):
                return {"POST": self._recover}
            case ("deliveries", delivery_id, "redeliver"):
                return {"POST": partial(self._redeliver, delivery_id)}
        return {}

    async def _logs(self, webhook: Webhook, request: Request) -> Done:
        query = Query(request.query, ("cursor", "limit", "status", "event", "job_id"))
        status = query.one_of("status", DeliveryStatus)
        page, cursor = await self.outbox.deliveries(
            DeliveryQuery(
                destination=webhook.id,
                status=DeliveryStatus(status) if status else None,
                kind=query.one_of("event", KINDS),
                job_id=query.text("job_id"),
                cursor=query.text("cursor"),
                limit=query.limit(),
            )
        )
        listed = [encode_delivery(delivery) for delivery in page]
        return Done(json_response(200, {"deliveries": listed, "next_cursor": cursor}))

    async def _test(self, webhook: Webhook, request: Request) -> Done:
        kind = read_test(await read_object(request, optional=True))
        _require_active(webhook)
        now = self.now()
        # A job of its own, so that no test waits for another one's retries.
        document = probe_envelope(kind, at=now, job_id="test_" + ulid(now, self.token(10)))
        message = Message(
            id=derived("dlv_", now, document["id"], webhook.id),
            sink=SINK,
            destination=webhook.id,
            kind=document["type"],
            event_id=document["id"],
            job_id=document["data"]["job_id"],
            sequence=document["sequence"],
            body=serialize(project(webhook, document)),
            created_at=now,
            due_at=now,
            request_id=request.request_id or None,
        )
        await self._enqueue([message])
        answer = {"delivery_id": message.id, "event_id": message.event_id, "event": message.kind}
        return Done(json_response(202, answer), Change.TESTED, {"delivery_id": message.id})

    async def _redeliver(self, delivery_id: str, webhook: Webhook, request: Request) -> Done:
        delivery = await self.outbox.get(delivery_id)
        if delivery is None or (delivery.message.sink, delivery.message.destination) != (
            SINK,
            webhook.id,
        ):
            raise NotFound(f"There is no delivery {delivery_id} to this webhook.")
        _require_active(webhook)
        old = delivery.message
        if not old.status.final:
            raise Conflict(f"The delivery is still {old.status.value}; it will be tried by itself.")
        now = self.now()
        message = replace(
            old,
            id=derived("dlv_", now, old.event_id, webhook.id, old.id),
            body=old.body or await self._recorded(webhook, old),
            created_at=now,
            due_at=now,
            replaceable=False,
            supersedes=False,
            attempt=0,
            status=DeliveryStatus.PENDING,
            request_id=request.request_id or None,
        )
        await self._enqueue([message])
        answer = {"delivery_id": message.id, "event_id": message.event_id, "event": message.kind}
        details = {"delivery_id": message.id, "redelivers": old.id}
        return Done(json_response(202, answer), Change.REDELIVERED, details)

    async def _recorded(self, webhook: Webhook, old: Message) -> bytes:
        """What a delivery carried whose own bytes are dropped, by its job's record."""
        entries = await self.jobs.timeline(old.job_id, old.sequence - 1)
        if not entries or entries[0].event_id != old.event_id:
            raise Conflict(
                "What this delivery carried is no longer kept; POST …/test sends a test event."
            )
        return _body(webhook, entries[0])

    async def _recover(self, webhook: Webhook, request: Request) -> Done:
        """Send again what was missed since a time.

        That is: exhausted, blocked, skipped, or never queued because the webhook was paused or
        disabled. Progress is left out: later events replace it.
        """
        since, cursor = read_recovery(await read_object(request))
        _require_active(webhook)
        since = max(since, webhook.created_at)
        recovered = 0
        jobs, cursor = await self._jobs_since(webhook, since, cursor)
        for job in jobs:
            messages = [
                self._again(webhook, job.id, entry, message_id, request)
                async for entry, message_id in self._missed(webhook, job, since)
            ]
            await self._enqueue(messages)
            recovered += len(messages)
        answer = {"recovered": recovered, "next_cursor": cursor}
        return Done(json_response(202, answer), Change.RECOVERED, {"recovered": recovered})

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
                    limit=MAX_LIMIT,
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
                DeliveryQuery(webhook.id, job_id=job_id, cursor=cursor, limit=MAX_LIMIT)
            )
            for delivery in page:
                message = delivery.message
                known = latest.get(message.event_id)
                if known is None or known.created_at < message.created_at:
                    latest[message.event_id] = message
            if cursor is None:
                return latest

    def _again(
        self, webhook: Webhook, job_id: str, entry: TimelineEntry, message_id: str, request: Request
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
            request_id=request.request_id or None,
        )

    async def _enqueue(self, messages: Sequence[Message]) -> None:
        if messages:
            await self.outbox.enqueue(messages)
            self.wake()


def _body(webhook: Webhook, entry: TimelineEntry) -> bytes:
    if webhook.fields is None:
        return entry.body
    return serialize(project(webhook, orjson.loads(entry.body)))


def _passes(webhook: Webhook, entry: TimelineEntry) -> bool:
    try:
        return passes(webhook, orjson.loads(entry.body))
    except ValueError:  # the event was not sent for this very reason
        return False


def _require_active(webhook: Webhook) -> None:
    if webhook.status is not WebhookStatus.ACTIVE:
        raise Conflict(
            f"The webhook is {webhook.status.value}, so nothing is sent to it; "
            'activate it with PATCH {"status": "active"} first.'
        )
