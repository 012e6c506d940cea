"""The OpenAPI 3.1 document of the gateway's own API; the upstream describes its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from gateway import __version__
from gateway.core.job import State
from gateway.core.outbox import DeliveryStatus
from gateway.core.webhook import WebhookStatus
from gateway.web.jobs import MAX_EVENTS
from gateway.web.openapi_schema import SCHEMAS, TEXT, TIME, Schema, one_of, ref
from gateway.web.query import MAX_LIMIT, MAX_TEXT
from gateway.web.webhook_delivery import KINDS

WEBHOOKS, JOBS = "/api/v1/webhooks", "/api/v1/jobs"
WEBHOOK = WEBHOOKS + "/{webhook_id}"
_REASONS = {
    "400": "The request cannot be read.",
    "401": "There is no valid key.",
    "403": "The key lacks a scope.",
    "404": "There is none, or it is another owner's.",
    "409": "It is not in a state for this.",
    "413": "The body is too large.",
    "422": "Fields break rules; `errors` names each.",
    "429": "Too often; see Retry-After.",
    "503": "The store does not answer; see Retry-After.",
}
_EVERYWHERE = ("400", "401", "403", "429", "503")


def parameter(name: str, schema: Schema, *, where: str = "query") -> Schema:
    """A parameter; what stands in the path is required."""
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


_CURSOR = parameter("cursor", {**TEXT, "minLength": 1, "maxLength": MAX_TEXT})
_LIMIT = parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 50})
PAGING = (_CURSOR, _LIMIT)
_NAME: Schema = {**TEXT, "minLength": 1, "maxLength": MAX_TEXT}
JOB_ID = parameter("job_id", _NAME)
WEBHOOK_STATUS = parameter("status", one_of(WebhookStatus))
WEBHOOK_ID = parameter("webhook_id", _NAME, where="path")
DELIVERY_FILTERS = (
    parameter("status", one_of(DeliveryStatus)),
    parameter("event", one_of(KINDS)),
    JOB_ID,
)


def operation(  # noqa: PLR0913 - the parts of an operation, each by its name
    operation_id: str,
    summary: str,
    status: int,
    answer: str | None,
    *,
    parameters: Sequence[Schema] = (),
    body: str | None = None,
    body_optional: bool = False,
    errors: Sequence[str] = (),
    links: Mapping[str, Any] | None = None,
) -> Schema:
    """One operation: its answer and its request's body by the names of their schemas."""
    answered: Schema = {"description": summary}
    if answer is not None:
        answered["content"] = {"application/json": {"schema": ref(answer)}}
    if links:
        answered["links"] = links
    body_errors = ("413", "422") if body is not None else ()
    responses = {str(status): answered}
    for code in sorted({*_EVERYWHERE, *errors, *body_errors}):
        responses[code] = _problem(code)
    found: Schema = {"operationId": operation_id, "summary": summary, "responses": responses}
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        content = {"application/json": {"schema": ref(body)}}
        found["requestBody"] = {"required": not body_optional, "content": content}
    return found


def document_of(title: str, paths: Mapping[str, Any], schemas: Mapping[str, Schema]) -> Schema:
    """The whole document; every operation needs an API key."""
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": dict(paths),
        "security": [{"key": []}, {"bearer": []}],
        "components": {
            "schemas": dict(schemas),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


@cache
def public_document() -> Schema:
    """What the public listener answers itself, below `/api/v1/webhooks` and `/api/v1/jobs`."""
    return document_of("Gateway: webhooks and jobs", {**_webhook_paths(), **_job_paths()}, SCHEMAS)


def _problem(code: str) -> Schema:
    content = {"application/problem+json": {"schema": ref("Problem")}}
    return {"description": _REASONS[code], "content": content}


def _webhook_paths() -> Schema:
    found = ("404",)
    return {
        WEBHOOKS: {
            "get": operation(
                "listWebhooks",
                "Your webhooks, oldest first; with `job_id` the callbacks of that job.",
                200,
                "WebhookPage",
                parameters=(*PAGING, WEBHOOK_STATUS, JOB_ID),
            ),
            "post": operation(
                "createWebhook",
                "A new webhook, with its secret.",
                201,
                "WebhookWithSecret",
                body="WebhookCreation",
                errors=("409",),
                links=_links(),
            ),
        },
        f"{WEBHOOKS}/events": {
            "get": operation("listEvents", "Every event, with a sample.", 200, "Catalogue")
        },
        WEBHOOK: {
            "parameters": [WEBHOOK_ID],
            "get": operation("getWebhook", "A webhook.", 200, "Webhook", errors=found),
            "put": operation(
                "replaceWebhook",
                "The webhook, replaced.",
                200,
                "Webhook",
                body="WebhookReplacement",
                errors=("404", "409"),
            ),
            "patch": operation(
                "changeWebhook",
                "The webhook, changed; null takes a field back to its default.",
                200,
                "Webhook",
                body="WebhookChange",
                errors=("404", "409"),
            ),
            "delete": operation("deleteWebhook", "It is gone.", 204, None, errors=found),
        },
        **_action_paths(),
    }


def _action_paths() -> Schema:
    delivery_id = parameter("delivery_id", _NAME, where="path")
    refused = ("404", "409")
    actions = {
        "/logs": operation(
            "listDeliveries",
            "Its deliveries with their attempts, newest first.",
            200,
            "DeliveryPage",
            parameters=(*PAGING, *DELIVERY_FILTERS),
            errors=("404",),
        ),
        "/test": operation(
            "testWebhook",
            "A test event is on its way.",
            202,
            "Sent",
            body="Test",
            body_optional=True,
            errors=refused,
        ),
        "/rotate": operation(
            "rotateSecret",
            "The webhook with its new secret.",
            200,
            "WebhookWithSecret",
            body="Rotation",
            body_optional=True,
            errors=refused,
        ),
        "/recover": operation(
            "recover",
            "What was missed is on its way.",
            202,
            "Recovered",
            body="Recovery",
            errors=refused,
        ),
        "/deliveries/{delivery_id}/redeliver": operation(
            "redeliver",
            "The event is on its way again.",
            202,
            "Sent",
            parameters=(delivery_id,),
            errors=refused,
        ),
    }
    return {
        WEBHOOK + path: {
            "parameters": [WEBHOOK_ID],
            "get" if path == "/logs" else "post": action,
        }
        for path, action in actions.items()
    }


def _job_paths() -> Schema:
    times = (parameter("since", TIME), parameter("until", TIME))
    after = {"type": "integer", "minimum": 0, "maximum": 2**53}
    return {
        f"{JOBS}/history": {
            "get": operation(
                "listJobs",
                "Your jobs, newest first.",
                200,
                "JobPage",
                parameters=(
                    *PAGING,
                    parameter("state", one_of(State)),
                    parameter("subject", _NAME),
                    *times,
                ),
            )
        },
        JOBS + "/{job_id}/events": {
            "parameters": [parameter("job_id", _NAME, where="path")],
            "get": operation(
                "listJobEvents",
                "A job and its events in order.",
                200,
                "JobEvents",
                parameters=(
                    parameter("after", after),
                    parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_EVENTS}),
                ),
                errors=("404",),
            ),
        },
        JOBS + "/{job_id}/ticket": {
            "parameters": [parameter("job_id", _NAME, where="path")],
            "post": operation(
                "createStreamTicket",
                "A ticket for a job's stream and events, for browsers, which can send no key.",
                201,
                "StreamTicket",
                errors=("404",),
            ),
        },
    }


def _links() -> Schema:
    """What can be done with a webhook just created."""
    return {
        name: {"operationId": name, "parameters": {"webhook_id": "$response.body#/id"}}
        for name in (
            "getWebhook",
            "replaceWebhook",
            "changeWebhook",
            "listDeliveries",
            "testWebhook",
            "rotateSecret",
            "recover",
            "deleteWebhook",
        )
    }
