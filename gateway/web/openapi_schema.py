"""The JSON Schemas of what the gateway's own API takes and answers, exact to the last member."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.address import MAX_URL_LENGTH
from gateway.core.error import UnprocessableContent
from gateway.core.filter import MAX_LENGTH
from gateway.core.job import EventType, State
from gateway.core.outbox import DeliveryStatus
from gateway.core.subscription import EVENT_NAMES, MAX_HEADER_VALUE_LENGTH, MAX_HEADERS
from gateway.core.webhook import MIN_PER_SECOND, WebhookStatus
from gateway.web.webhook_delivery import KINDS
from gateway.web.webhook_input import (
    DEFAULT_OVERLAP_SECONDS,
    MAX_DESCRIPTION_LENGTH,
    MAX_OVERLAP_SECONDS,
    MAX_PER_SECOND,
)
from gateway.web.webhook_sample import DATA_FIELDS

Schema = dict[str, Any]

TIME: Schema = {"type": "string", "format": "date-time"}
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
_ANY_OBJECT: Schema = {"type": "object"}


def optional(schema: Mapping[str, Any]) -> Schema:
    """The same, or null."""
    either = {**schema, "type": [schema["type"], "null"]}
    return {**either, "enum": [*schema["enum"], None]} if "enum" in schema else either


def one_of(words: Iterable[str]) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": list(words)}


def array(items: Mapping[str, Any], **more: Any) -> Schema:
    """An array of these."""
    return {"type": "array", "items": dict(items), **more}


def exactly(properties: Mapping[str, Any], **more: Any) -> Schema:
    """An object with all of these members and no other."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
        **more,
    }


def some_of(properties: Mapping[str, Any], *required: str) -> Schema:
    """An object with some of these members and no other."""
    return {**exactly(properties), "required": list(required)}


def ref(name: str) -> Schema:
    """A schema of `SCHEMAS` by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


_URL: Schema = {
    "type": "string",
    "maxLength": MAX_URL_LENGTH,
    "description": "https, port 443, 80 or 8443, a public address; operators may allow more.",
    "examples": ["https://example.com/hook"],
}
_SECRET: Schema = {"type": "string", "description": "whsec_ and the base64 of 24 to 64 bytes."}
_EVENTS = array(one_of(EVENT_NAMES), uniqueItems=True, minItems=1)
_FIELDS = array(one_of(sorted(DATA_FIELDS)), uniqueItems=True, minItems=1)
_FILTER: Schema = {
    "type": "string",
    "maxLength": MAX_LENGTH,
    "description": "A JMESPath predicate over the event, without what builds new values.",
}
_HEADERS: Schema = {
    "type": "object",
    "maxProperties": MAX_HEADERS,
    "additionalProperties": {"type": "string", "maxLength": MAX_HEADER_VALUE_LENGTH},
    "description": "Sent with each delivery; names that the gateway sets itself are refused.",
}
_TIMEOUT: Schema = {"type": "number", "minimum": 1, "maximum": 30}
_RETRIES: Schema = {"type": "integer", "minimum": 0, "maximum": 10}
_RATE: Schema = {"type": "number", "minimum": MIN_PER_SECOND, "maximum": MAX_PER_SECOND}
_DESCRIPTION: Schema = {"type": "string", "maxLength": MAX_DESCRIPTION_LENGTH}

_SETTABLE: Schema = {
    "url": _URL,
    "events": optional(_EVENTS),
    "filter": optional(_FILTER),
    "fields": optional(_FIELDS),
    "headers": optional(_HEADERS),
    "description": optional(_DESCRIPTION),
    "status": optional(one_of([WebhookStatus.ACTIVE, WebhookStatus.PAUSED])),
    "timeout_seconds": optional(_TIMEOUT),
    "max_retries": optional(_RETRIES),
    "max_per_second": optional(_RATE),
}
_WEBHOOK: Schema = {
    "id": TEXT,
    "url": _URL,
    "events": _EVENTS,
    "job_id": optional(TEXT),
    "filter": optional(_FILTER),
    "fields": optional(_FIELDS),
    "headers": _HEADERS,
    "description": optional(_DESCRIPTION),
    "status": one_of(WebhookStatus),
    "disabled_reason": optional(TEXT),
    "timeout_seconds": optional(_TIMEOUT),
    "max_retries": optional(_RETRIES),
    "max_per_second": optional(_RATE),
    "secret_hint": TEXT,
    "previous_secret_expires_at": optional(TIME),
    "consecutive_failures": COUNT,
    "last_success_at": optional(TIME),
    "created_at": TIME,
}
_ATTEMPT: Schema = {
    "number": {"type": "integer", "minimum": 1},
    "started_at": TIME,
    "duration_seconds": NUMBER,
    "status_code": optional({"type": "integer"}),
    "error_kind": optional(TEXT),
    "detail": TEXT,
    "response_excerpt": TEXT,
}
_DELIVERY: Schema = {
    "id": TEXT,
    "event_id": TEXT,
    "event": one_of(KINDS),
    "job_id": TEXT,
    "sequence": COUNT,
    "status": one_of(DeliveryStatus),
    "attempt_count": COUNT,
    "created_at": TIME,
    "finished_at": optional(TIME),
    "next_attempt_at": optional(TIME),
    "attempts": array(ref("Attempt")),
}
_DATA: Schema = {
    "job_id": TEXT,
    "video_id": optional(TEXT),
    "status": one_of(State),
    "previous_status": optional(one_of(State)),
    "stage": optional(TEXT),
    "progress": optional(NUMBER),
    "stages_completed": optional({"type": "integer"}),
    "total_stages": optional({"type": "integer"}),
    "estimated_completion_seconds": optional(NUMBER),
    "error": {},
    "results": {},
    "status_url": optional(TEXT),
}
_EVENT: Schema = {
    "id": TEXT,
    "type": one_of(kind.value for kind in EventType),
    "timestamp": TIME,
    "api_version": TEXT,
    "sequence": {"type": "integer", "minimum": 1},
    "data": exactly(_DATA),
}
_JOB: Schema = {
    "job_id": TEXT,
    "video_id": optional(TEXT),
    "status": one_of(State),
    "stage": optional(TEXT),
    "progress": optional(NUMBER),
    "stages_completed": optional({"type": "integer"}),
    "total_stages": optional({"type": "integer"}),
    "estimated_completion_seconds": optional(NUMBER),
    "error": {},
    "sequence": COUNT,
    "retry_count": COUNT,
    "stage_seconds": _ANY_OBJECT,
    "created_at": TIME,
    "started_at": optional(TIME),
    "finished_at": optional(TIME),
    "webhook_urls": array(TEXT),
    "webhook_events": array(TEXT),
}
_PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457.",
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": TEXT,
        "instance": TEXT,
        "request_id": TEXT,
        "errors": {
            "description": f"The fields that break a rule, of a {UnprocessableContent.status}.",
            **array({"type": "object", "properties": {"pointer": TEXT, "detail": TEXT}}),
        },
    },
    "required": ["type", "title", "status", "detail"],
}
_OVERLAP: Schema = {
    "type": "number",
    "minimum": 0,
    "maximum": MAX_OVERLAP_SECONDS,
    "default": DEFAULT_OVERLAP_SECONDS,
}


def _page(name: str, of: str) -> Schema:
    return exactly({name: array(ref(of)), "next_cursor": optional(TEXT)})


SCHEMAS: Mapping[str, Schema] = {
    "Webhook": exactly(_WEBHOOK),
    "WebhookWithSecret": exactly({**_WEBHOOK, "secret": _SECRET}),
    "WebhookPage": _page("webhooks", "Webhook"),
    "WebhookCreation": some_of({**_SETTABLE, "secret": optional(_SECRET)}, "url"),
    "WebhookReplacement": {
        "type": "object",
        "description": "What is absent takes its default. What a GET gave may be sent back.",
        "properties": _SETTABLE,
        "required": ["url"],
    },
    "WebhookChange": some_of(_SETTABLE),
    "Rotation": some_of({"secret": optional(_SECRET), "overlap_seconds": _OVERLAP}),
    "Test": some_of({"event": optional(one_of(kind.value for kind in EventType))}),
    "Recovery": some_of({"since": TIME, "cursor": optional(TEXT)}, "since"),
    "Recovered": exactly({"recovered": COUNT, "next_cursor": optional(TEXT)}),
    "Sent": exactly({"delivery_id": TEXT, "event_id": TEXT, "event": one_of(KINDS)}),
    "Attempt": exactly(_ATTEMPT),
    "Delivery": exactly(_DELIVERY),
    "DeliveryPage": _page("deliveries", "Delivery"),
    "Event": exactly(_EVENT),
    "Catalogue": exactly(
        {"events": array(exactly({"type": TEXT, "description": TEXT, "sample": ref("Event")}))}
    ),
    "Job": exactly(_JOB),
    "JobPage": _page("jobs", "Job"),
    "JobEvents": exactly(
        {"job": ref("Job"), "events": array(ref("Event")), "next_after": optional(COUNT)}
    ),
    "StreamTicket": exactly(
        {
            "ticket": optional(TEXT),
            "expires_at": optional(TIME),
            "stream_url": optional(TEXT),
            "events_url": TEXT,
        }
    ),
    "Problem": _PROBLEM,
}
