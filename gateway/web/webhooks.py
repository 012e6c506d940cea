"""`/api/v1/webhooks`: owners manage their webhooks. Another owner's is as good as none (404)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from gateway.core.address import AddressRule
from gateway.core.audit import AuditEntry, Change, change_entry, key_actor
from gateway.core.error import (
    Conflict,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    StoreUnavailable,
)
from gateway.core.identifier import ulid
from gateway.core.message import Handler, Request, Response
from gateway.core.signature import generate_secret
from gateway.core.webhook import Webhook, WebhookStatus
from gateway.delivery.replay import Replay
from gateway.store.audit import AuditLog
from gateway.store.job import JobStore
from gateway.store.outbox import Outbox
from gateway.store.webhook import WebhookQuery, WebhookStore
from gateway.telemetry.log import get_logger
from gateway.web.document import json_response, read_object
from gateway.web.openapi import public_document
from gateway.web.query import Query
from gateway.web.webhook_delivery import Action, DeliveryApi
from gateway.web.webhook_document import encode_webhook
from gateway.web.webhook_input import (
    read_change,
    read_creation,
    read_replacement,
    read_rotation,
)
from gateway.web.webhook_sample import catalogue

PATH = "/api/v1/webhooks"
ALL_OWNERS_SCOPE = "webhooks:all"
WEBHOOK_FILTERS = ("cursor", "limit", "status", "job_id")
_EDIT_TRIES = 5

Publish = Callable[[Webhook, bool], Awaitable[None]]
Edit = Callable[[Webhook], Webhook]

_log = get_logger("webhook")
_audit = get_logger("audit")


async def publish_nowhere(_webhook: Webhook, _deleted: bool) -> None:  # noqa: FBT001 - a hook's shape
    """The hook when nobody keeps copies of webhooks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookApi:
    """Answers requests below `/api/v1/webhooks`; every error is a `GatewayError`.

    `now` gives epoch seconds, `token(n)` n random bytes, `wake` tells the dispatcher of messages;
    `publish(webhook, deleted)` hears of every change after it was stored.
    """

    webhooks: WebhookStore
    outbox: Outbox
    jobs: JobStore
    audit: AuditLog
    rule: AddressRule
    max_per_owner: int
    now: Callable[[], float]
    token: Callable[[int], bytes]
    wake: Callable[[], None]
    publish: Publish = publish_nowhere

    async def handle(self, request: Request) -> Response:
        """Answer one request; a closing slash makes no difference."""
        path = request.path.removeprefix(PATH).removesuffix("/")
        methods = self._methods(tuple(path.split("/")[1:]))
        if not methods:
            raise NotFound(f"There is no resource {request.path}.")
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allow = ", ".join([*methods, "HEAD"] if "GET" in methods else methods)
            detail = f"{request.path} takes {allow}, not {request.method}."
            raise MethodNotAllowed(detail, headers={"Allow": allow})
        return await handler(request)

    def _methods(self, segments: tuple[str, ...]) -> Mapping[str, Handler]:
        match segments:
            case ():
                return {"GET": self._list, "POST": self._create}
            case ("events",) | ("events", "available") | ("openapi.json",):
                return {"GET": _openapi if segments == ("openapi.json",) else _events}
            case (webhook_id,):
                return {
                    "GET": partial(self._get, webhook_id),
                    "PUT": partial(self._replace, webhook_id),
                    "PATCH": partial(self._change, webhook_id),
                    "DELETE": partial(self._delete, webhook_id),
                }
            case (webhook_id, "rotate"):
                return {"POST": partial(self._rotate, webhook_id)}
            case (webhook_id, *rest):
                replay = Replay(self.outbox, self.jobs, self.now, self.wake)
                delivery = DeliveryApi(self.outbox, replay, self.now, self.token)
                return {
                    method: partial(self._deliver, webhook_id, action)
                    for method, action in delivery.methods(tuple(rest)).items()
                }
        return {}

    async def _create(self, request: Request) -> Response:
        fields = read_creation(await read_object(request), self.rule)
        if await self.webhooks.count(request.owner) >= self.max_per_owner:
            raise Conflict(
                f"You have {self.max_per_owner} webhooks, which is the most an owner may have; "
                "delete one first."
            )
        now = self.now()
        secret = fields.pop("secret") or generate_secret(self.token(32))
        webhook = Webhook(
            id="wh_" + ulid(now, self.token(10)),
            owner=request.owner,
            secret=secret,
            created_at=now,
            updated_at=now,
            all_owners=request.principal is not None
            and ALL_OWNERS_SCOPE in request.principal.scopes,
            **fields,
        )
        if not await self.webhooks.add(webhook, _entry(Change.CREATED, request, webhook, now)):
            raise Conflict("The webhook's new identifier is taken; send the request again.")
        await self._announce("webhook_created", request, webhook)
        location = {"Location": f"{PATH}/{webhook.id}"}
        return json_response(201, encode_webhook(webhook, reveal=True), location)

    async def _list(self, request: Request) -> Response:
        query = Query(request.query, WEBHOOK_FILTERS)
        page, cursor = await self.webhooks.list(webhook_query(query, request.owner))
        listed = [encode_webhook(webhook) for webhook in page]
        return json_response(200, {"webhooks": listed, "next_cursor": cursor})

    async def _get(self, webhook_id: str, request: Request) -> Response:
        return json_response(200, encode_webhook(await self._own(webhook_id, request)))

    async def _replace(self, webhook_id: str, request: Request) -> Response:
        document = await read_object(request)

        def edit(webhook: Webhook) -> Webhook:
            fields = read_replacement(document, webhook, self.rule)
            return _changed(webhook, fields, self.now())

        webhook = await self._edit(Change.REPLACED, webhook_id, request, edit)
        await self._announce("webhook_replaced", request, webhook)
        return json_response(200, encode_webhook(webhook))

    async def _change(self, webhook_id: str, request: Request) -> Response:
        fields = read_change(await read_object(request), self.rule)
        webhook = await self._edit(
            Change.CHANGED,
            webhook_id,
            request,
            lambda webhook: _changed(webhook, fields, self.now()),
            fields=sorted(fields),
        )
        await self._announce("webhook_changed", request, webhook, fields=sorted(fields))
        return json_response(200, encode_webhook(webhook))

    async def _rotate(self, webhook_id: str, request: Request) -> Response:
        given, overlap_seconds = read_rotation(await read_object(request, optional=True))
        secret = given or generate_secret(self.token(32))

        def edit(webhook: Webhook) -> Webhook:
            now = self.now()
            return replace(
                webhook,
                secret=secret,
                previous_secret=webhook.secret if overlap_seconds else None,
                previous_secret_expires_at=now + overlap_seconds if overlap_seconds else None,
                updated_at=now,
                revision=webhook.revision + 1,
            )

        webhook = await self._edit(
            Change.ROTATED, webhook_id, request, edit, overlap_seconds=overlap_seconds
        )
        _tell("webhook_secret_rotated", request, webhook, overlap_seconds=overlap_seconds)
        return json_response(200, encode_webhook(webhook, reveal=True))

    async def _delete(self, webhook_id: str, request: Request) -> Response:
        webhook = await self._own(webhook_id, request)
        now = self.now()
        entry = _entry(Change.DELETED, request, webhook, now)
        if not await self.webhooks.delete(webhook_id, entry):
            raise _not_found(webhook_id)
        cancelled = await self.outbox.cancel(webhook_id, now)
        await self._announce(
            "webhook_deleted", request, webhook, deleted=True, deliveries_cancelled=cancelled
        )
        return Response(204)

    async def _deliver(self, webhook_id: str, action: Action, request: Request) -> Response:
        webhook = await self._own(webhook_id, request)
        done = await action(webhook, request)
        if done.change is not None:
            entry = _entry(done.change, request, webhook, self.now(), **done.details)
            await self.audit.append([entry])
            _tell(done.change.value.replace(".", "_"), request, webhook, **done.details)
        return done.response

    async def _own(self, webhook_id: str, request: Request) -> Webhook:
        webhook = await self.webhooks.get(webhook_id)
        if webhook is None or webhook.owner != request.owner:
            raise _not_found(webhook_id)
        return webhook

    async def _edit(
        self, change: Change, webhook_id: str, request: Request, edit: Edit, **details: Any
    ) -> Webhook:
        """Store what `edit` makes of the webhook, looking again when another change was faster."""
        for _ in range(_EDIT_TRIES):
            webhook = await self._own(webhook_id, request)
            principal = request.principal
            if webhook.all_owners and not (principal and principal.allows(ALL_OWNERS_SCOPE)):
                raise Forbidden(
                    "This webhook is sent every owner's events; "
                    f"changing it needs the scope {ALL_OWNERS_SCOPE}."
                )
            after = edit(webhook)
            entry = _entry(change, request, after, after.updated_at, **details)
            if await self.webhooks.replace(after, webhook.revision, entry):
                return after
        raise Conflict("The webhook is being changed by others; read it and try again.")

    async def _announce(
        self,
        event: str,
        request: Request,
        webhook: Webhook,
        *,
        deleted: bool = False,
        **fields: Any,
    ) -> None:
        """Log the change, and let it be copied elsewhere."""
        _tell(event, request, webhook, **fields)
        try:
            await self.publish(webhook, deleted)
        except StoreUnavailable as error:
            # The change itself is stored, and its answer may hold the only sight of the secret.
            _log.warning("webhook_copy_failed", webhook_id=webhook.id, error=error.detail)


def webhook_query(query: Query, owner: str | None) -> WebhookQuery:
    """Which webhooks a query string asks for; `owner` None: of any owner."""
    status = query.one_of("status", WebhookStatus)
    return WebhookQuery(
        owner=owner,
        job_id=query.text("job_id"),
        status=WebhookStatus(status) if status else None,
        cursor=query.text("cursor"),
        limit=query.limit(),
    )


async def _events(_request: Request) -> Response:
    return json_response(200, catalogue())


async def _openapi(_request: Request) -> Response:
    return json_response(200, public_document())


def _changed(webhook: Webhook, fields: Mapping[str, Any], now: float) -> Webhook:
    """`webhook` with these fields; one activated or paused anew forgets why it was disabled."""
    after = replace(webhook, **fields, updated_at=now, revision=webhook.revision + 1)
    if after.status is WebhookStatus.DISABLED or webhook.status is not WebhookStatus.DISABLED:
        return after
    return replace(
        after,
        disabled_reason=None,
        consecutive_failures=0,
        failing_since=None,
        exhausted_count=0,
    )


def _not_found(webhook_id: str) -> NotFound:
    return NotFound(f"There is no webhook {webhook_id}.")


def _entry(
    change: Change, request: Request, webhook: Webhook, at: float, **details: Any
) -> AuditEntry:
    """The line of a change that a request made."""
    actor = key_actor(request.principal.key_id if request.principal else None)
    return change_entry(change, webhook, at, actor, request_id=request.request_id, **details)


def _tell(event: str, request: Request, webhook: Webhook, **fields: Any) -> None:
    """One log line a change. Of the URL only the host: its path may itself be a credential."""
    _audit.info(
        event,
        webhook_id=webhook.id,
        owner=webhook.owner,
        key_id=request.principal.key_id if request.principal else None,
        **request.ids,
        host=urlsplit(webhook.url).hostname,
        status=webhook.status.value,
        **fields,
    )
