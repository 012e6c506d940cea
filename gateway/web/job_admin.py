"""`/jobs` on the admin listener: every owner's jobs, their events and deliveries, for operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from aiohttp import web

from gateway.core.audit import Change, change_entry, key_actor
from gateway.core.error import NotFound
from gateway.core.event import rfc3339
from gateway.core.job import EventType, Job
from gateway.core.violation import Violations
from gateway.delivery.convex_sink import DESTINATION as CONVEX
from gateway.delivery.replay import Replay
from gateway.store.audit import AuditLog
from gateway.store.job import JobStore
from gateway.store.outbox import DeliveryQuery, Outbox
from gateway.store.webhook import WebhookQuery, WebhookStore
from gateway.web.admin_key import AdminKey
from gateway.web.document import json_response, parse_object
from gateway.web.jobs import JOB_FILTERS, encode_job, event_page, job_query
from gateway.web.query import MAX_TEXT, Query
from gateway.web.webhook_document import encode_delivery

_NOT_STORED = {"Cache-Control": "no-store"}
_PAGE = 100
_REPLAY_FIELDS = frozenset({"webhook_id", "event"})
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobDesk:
    """What operators can ask of jobs, whosever they are. Every error is a `GatewayError`."""

    jobs: JobStore
    webhooks: WebhookStore
    outbox: Outbox
    audit: AuditLog
    replay: Replay

    async def list(self, raw_query: str) -> Document:
        """A page of jobs, newest first; `owner` narrows it."""
        query = Query(raw_query, (*JOB_FILTERS, "owner"))
        page, cursor = await self.jobs.list(job_query(query, query.text("owner")))
        return {"jobs": [_document(job) for job in page], "next_cursor": cursor}

    async def show(self, job_id: str) -> Document:
        """One job."""
        return _document(await self._found(job_id))

    async def events(self, job_id: str, raw_query: str) -> Document:
        """A page of its events, in order."""
        query = Query(raw_query, ("after", "limit"))
        await self._found(job_id)
        entries, after = await event_page(self.jobs, job_id, query)
        return {"events": [orjson.loads(entry.body) for entry in entries], "next_after": after}

    async def deliveries(self, job_id: str) -> Document:
        """The newest deliveries of its events, by receiver.

        Of its callbacks, its owner's webhooks, the active ones of every owner's jobs, and Convex.
        """
        job = await self._found(job_id)
        found: list[Document] = []
        for destination in [*await self._receivers(job), CONVEX]:
            page, _ = await self.outbox.deliveries(
                DeliveryQuery(destination, job_id=job_id, limit=_PAGE)
            )
            found += [{**encode_delivery(each), "destination": destination} for each in page]
        return {"deliveries": found}

    async def send_again(self, job_id: str, document: Mapping[str, Any], actor: str) -> Document:
        """Its events to a webhook once more; `actor` as in the audit log."""
        webhook_id, kind = _read_replay(document)
        job = await self._found(job_id)
        webhook = await self.webhooks.get(webhook_id)
        if webhook is None:
            raise NotFound(f"There is no webhook {webhook_id}.")
        count = await self.replay.job(webhook, job, kind)
        details = {"recovered": count, "job_id": job_id}
        entry = change_entry(Change.RECOVERED, webhook, self.replay.now(), actor, **details)
        await self.audit.append([entry])
        return {"replayed": count}

    async def _found(self, job_id: str) -> Job:
        job = await self.jobs.get(job_id)
        if job is None:
            raise NotFound(f"There is no job {job_id}.")
        return job

    async def _receivers(self, job: Job) -> Iterable[str]:
        """The ids of the webhooks that may have been told of a job."""
        found = await self.webhooks.candidates(job.owner, job.id)
        ids = dict.fromkeys(webhook.id for webhook in found)
        for wanted in (WebhookQuery(job_id=job.id), WebhookQuery(owner=job.owner)):
            cursor: str | None = None
            while True:
                query = replace(wanted, cursor=cursor, limit=_PAGE)
                page, cursor = await self.webhooks.list(query)
                ids |= dict.fromkeys(webhook.id for webhook in page)
                if cursor is None:
                    break
        return ids


class JobAdmin:
    """The desk over HTTP, for whoever has a key with the scope `admin`."""

    def __init__(self, desk: JobDesk, callers: AdminKey) -> None:
        self._desk = desk
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        """For the admin listener's application."""
        return [
            web.get("/jobs", self._list),
            web.get("/jobs/{job_id}", self._show),
            web.get("/jobs/{job_id}/events", self._events),
            web.get("/jobs/{job_id}/deliveries", self._deliveries),
            web.post("/jobs/{job_id}/replay", self._replay),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        return _sent(200, await self._desk.list(request.query_string))

    async def _show(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        return _sent(200, await self._desk.show(request.match_info["job_id"]))

    async def _events(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        job_id = request.match_info["job_id"]
        return _sent(200, await self._desk.events(job_id, request.query_string))

    async def _deliveries(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        return _sent(200, await self._desk.deliveries(request.match_info["job_id"]))

    async def _replay(self, request: web.Request) -> web.Response:
        actor = key_actor(self._callers.caller(request).key_id)
        document = parse_object(await request.read())
        job_id = request.match_info["job_id"]
        return _sent(202, await self._desk.send_again(job_id, document, actor))


def _document(job: Job) -> Document:
    return {
        **encode_job(job),
        "owner": job.owner,
        "upstream": job.upstream,
        "request_id": job.request_id,
        "lost_since": None if job.lost_since is None else rfc3339(job.lost_since),
    }


def _read_replay(document: Mapping[str, Any]) -> tuple[str, EventType | None]:
    """The webhook's id, and the one type of events that is wanted, if only one is."""
    violations = Violations()
    for name in document.keys() - _REPLAY_FIELDS:
        violations.add_unknown(name, _REPLAY_FIELDS)
    webhook_id = document.get("webhook_id")
    if not isinstance(webhook_id, str) or not 0 < len(webhook_id) <= MAX_TEXT:
        violations.add("must be a webhook's id", "webhook_id")
    kind = document.get("event")
    if kind is not None and kind not in list(EventType):
        violations.add(f"must be one of {', '.join(EventType)}", "event")
    violations.raise_any()
    return str(webhook_id), None if kind is None else EventType(kind)


def _sent(status: int, document: Document) -> web.Response:
    response = json_response(status, document, _NOT_STORED)
    assert isinstance(response.body, bytes)
    return web.Response(status=status, headers=response.headers, body=response.body)
