"""`/webhooks` and `/audit` on the admin listener: every owner's webhooks, for operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.core.audit import ACTIONS, FAMILIES, AuditEntry, Change, change_entry, key_actor
from gateway.core.error import NotFound
from gateway.core.event import rfc3339
from gateway.core.webhook import Webhook
from gateway.delivery.replay import Replay
from gateway.store.audit import AuditLog, AuditQuery
from gateway.store.outbox import Outbox
from gateway.store.webhook import WebhookStore
from gateway.web.admin_key import AdminKey
from gateway.web.document import json_response, parse_object
from gateway.web.openapi_admin import admin_document
from gateway.web.query import Query
from gateway.web.webhook_delivery import delivery_page
from gateway.web.webhook_document import encode_webhook
from gateway.web.webhook_input import read_replay
from gateway.web.webhooks import WEBHOOK_FILTERS, webhook_query

_NOT_STORED = {"Cache-Control": "no-store"}
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WebhookDesk:
    """What operators can ask of webhooks, whosever they are. Every error is a `GatewayError`."""

    webhooks: WebhookStore
    outbox: Outbox
    audit: AuditLog
    replay: Replay

    async def list(self, raw_query: str) -> Document:
        """A page of webhooks, oldest first; `owner` narrows it."""
        query = Query(raw_query, (*WEBHOOK_FILTERS, "owner"))
        page, cursor = await self.webhooks.list(webhook_query(query, query.text("owner")))
        return {"webhooks": [_document(webhook) for webhook in page], "next_cursor": cursor}

    async def show(self, webhook_id: str) -> Document:
        """One webhook."""
        return _document(await self._found(webhook_id))

    async def deliveries(self, webhook_id: str, raw_query: str) -> Document:
        """A page of its delivery log, newest first."""
        await self._found(webhook_id)
        return await delivery_page(self.outbox, webhook_id, raw_query)

    async def send_again(
        self, webhook_id: str, document: Mapping[str, Any], actor: str
    ) -> Document:
        """One delivery again, or what was missed since a time; `actor` as in the audit log."""
        webhook = await self._found(webhook_id)
        asked = read_replay(document)
        details: Document
        if asked.delivery_id is not None:
            message = await self.replay.redeliver(webhook, asked.delivery_id)
            count, cursor, change = 1, None, Change.REDELIVERED
            details = {"delivery_id": message.id, "redelivers": asked.delivery_id}
        else:
            count, cursor = await self.replay.recover(webhook, asked.since, asked.cursor)
            change, details = Change.RECOVERED, {"recovered": count}
        entry = change_entry(change, webhook, self.replay.now(), actor, **details)
        await self.audit.append([entry])
        return {"replayed": count, "next_cursor": cursor}

    async def lines(self, raw_query: str) -> Document:
        """A page of the audit log, newest first."""
        query = Query(raw_query, ("cursor", "limit", "webhook_id", "action", "since", "until"))
        page, cursor = await self.audit.list(
            AuditQuery(
                webhook_id=query.text("webhook_id"),
                action=query.one_of("action", (*FAMILIES, *ACTIONS)),
                since=query.time("since"),
                until=query.time("until"),
                cursor=query.text("cursor"),
                limit=query.limit(),
            )
        )
        return {"entries": [_line(entry) for entry in page], "next_cursor": cursor}

    async def _found(self, webhook_id: str) -> Webhook:
        webhook = await self.webhooks.get(webhook_id)
        if webhook is None:
            raise NotFound(f"There is no webhook {webhook_id}.")
        return webhook


class WebhookAdmin:
    """The desk over HTTP, for whoever has a key with the scope `admin`."""

    def __init__(self, desk: WebhookDesk, callers: AdminKey) -> None:
        self._desk = desk
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        """For the admin listener's application."""
        return [
            web.get("/webhooks", self._list),
            web.get("/webhooks/{webhook_id}", self._show),
            web.get("/webhooks/{webhook_id}/deliveries", self._deliveries),
            web.post("/webhooks/{webhook_id}/replay", self._replay),
            web.get("/audit", self._audit),
            web.get("/openapi.json", self._openapi),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        return _sent(200, await self._desk.list(request.query_string))

    async def _show(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        return _sent(200, await self._desk.show(request.match_info["webhook_id"]))

    async def _deliveries(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        webhook_id = request.match_info["webhook_id"]
        return _sent(200, await self._desk.deliveries(webhook_id, request.query_string))

    async def _replay(self, request: web.Request) -> web.Response:
        actor = key_actor(self._callers.caller(request).key_id)
        document = parse_object(await request.read())
        webhook_id = request.match_info["webhook_id"]
        return _sent(202, await self._desk.send_again(webhook_id, document, actor))

    async def _audit(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        return _sent(200, await self._desk.lines(request.query_string))

    async def _openapi(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        return _sent(200, admin_document())


def _document(webhook: Webhook) -> Document:
    owned = {"owner": webhook.owner, "all_owners": webhook.all_owners}
    return {**encode_webhook(webhook), **owned}


def _line(entry: AuditEntry) -> Document:
    return {
        "at": rfc3339(entry.at),
        "action": entry.action,
        "webhook_id": entry.webhook_id,
        "actor": entry.actor,
        "details": dict(entry.details),
    }


def _sent(status: int, document: Document) -> web.Response:
    response = json_response(status, document, _NOT_STORED)
    assert isinstance(response.body, bytes)
    return web.Response(status=status, headers=response.headers, body=response.body)
