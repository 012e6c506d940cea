"""The deliveries of one webhook: its log, a test, and sending again what it missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gateway.core.audit import Change
from gateway.core.event import serialize
from gateway.core.identifier import derived, ulid
from gateway.core.job import EventType
from gateway.core.message import Request, Response
from gateway.core.outbox import DeliveryStatus, Message
from gateway.core.webhook import Webhook, project
from gateway.delivery.replay import Replay, require_active
from gateway.delivery.webhook import SINK
from gateway.store.outbox import DeliveryQuery, Outbox
from gateway.web.document import json_response, read_object
from gateway.web.query import Query
from gateway.web.webhook_document import encode_delivery
from gateway.web.webhook_input import read_recovery, read_test
from gateway.web.webhook_sample import TEST_EVENT, probe_envelope


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
    """Answers what lies below one webhook; `now` and `token` as in `WebhookApi`."""

    outbox: Outbox
    replay: Replay
    now: Callable[[], float]
    token: Callable[[int], bytes]

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
        document = await delivery_page(self.outbox, webhook.id, request.query)
        return Done(json_response(200, document))

    async def _test(self, webhook: Webhook, request: Request) -> Done:
        kind = read_test(await read_object(request, optional=True))
        require_active(webhook)
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
        await self.replay.enqueue([message])
        answer = {"delivery_id": message.id, "event_id": message.event_id, "event": message.kind}
        return Done(json_response(202, answer), Change.TESTED, {"delivery_id": message.id})

    async def _redeliver(self, delivery_id: str, webhook: Webhook, request: Request) -> Done:
        message = await self.replay.redeliver(webhook, delivery_id, request.request_id or None)
        answer = {"delivery_id": message.id, "event_id": message.event_id, "event": message.kind}
        details = {"delivery_id": message.id, "redelivers": delivery_id}
        return Done(json_response(202, answer), Change.REDELIVERED, details)

    async def _recover(self, webhook: Webhook, request: Request) -> Done:
        since, cursor = read_recovery(await read_object(request))
        recovered, cursor = await self.replay.recover(
            webhook, since, cursor, request.request_id or None
        )
        answer = {"recovered": recovered, "next_cursor": cursor}
        return Done(json_response(202, answer), Change.RECOVERED, {"recovered": recovered})


async def delivery_page(outbox: Outbox, webhook_id: str, raw_query: str) -> dict[str, Any]:
    """A page of a webhook's delivery log, by the query string of whoever asks."""
    query = Query(raw_query, ("cursor", "limit", "status", "event", "job_id"))
    status = query.one_of("status", DeliveryStatus)
    page, cursor = await outbox.deliveries(
        DeliveryQuery(
            destination=webhook_id,
            status=DeliveryStatus(status) if status else None,
            kind=query.one_of("event", KINDS),
            job_id=query.text("job_id"),
            cursor=query.text("cursor"),
            limit=query.limit(),
        )
    )
    return {"deliveries": [encode_delivery(each) for each in page], "next_cursor": cursor}
