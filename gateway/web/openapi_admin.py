"""The OpenAPI 3.1 document of the admin listener."""

from __future__ import annotations

from functools import cache

from gateway.core.audit import ACTIONS, FAMILIES
from gateway.core.job import EventType, State
from gateway.web.jobs import MAX_EVENTS
from gateway.web.openapi import (
    DELIVERY_FILTERS,
    JOB_ID,
    PAGING,
    WEBHOOK_ID,
    WEBHOOK_STATUS,
    document_of,
    operation,
    parameter,
)
from gateway.web.openapi_schema import (
    COUNT,
    SCHEMAS,
    TEXT,
    TIME,
    Schema,
    array,
    exactly,
    one_of,
    optional,
    ref,
    some_of,
)
from gateway.web.query import MAX_TEXT

_NAME: Schema = {**TEXT, "minLength": 1, "maxLength": MAX_TEXT}
_ID = "/webhooks/{webhook_id}"
_JOB = "/jobs/{job_id}"
_KEY: Schema = {
    "id": TEXT,
    "owner": TEXT,
    "name": optional(TEXT),
    "state": one_of(["active", "expired", "revoked"]),
    "scopes": array(TEXT),
    "tier": optional(TEXT),
    "networks": array(TEXT),
    "lineage": optional(TEXT),
    "created_at": optional(TIME),
    "expires_at": optional(TIME),
    "revoked_at": optional(TIME),
    "last_used_at": optional(TIME),
    "source": one_of(["file", "store"]),
}
_SCHEMAS: dict[str, Schema] = {
    "Key": exactly(_KEY),
    "KeyPage": exactly({"keys": array(ref("Key")), "next_cursor": optional(TEXT)}),
    "IssuedKey": {
        **exactly({**_KEY, "key": TEXT, "predecessor": ref("Key")}),
        "required": [*_KEY, "key"],
    },
    "KeyCreation": some_of(
        {
            "id": TEXT,
            "owner": TEXT,
            "name": TEXT,
            "scopes": array(TEXT),
            "tier": TEXT,
            "networks": array(TEXT),
            "expires_at": TEXT,
        },
        "owner",
    ),
    "KeyRotation": some_of({"id": TEXT, "overlap": TEXT, "expires_at": TEXT}),
    "OwnedWebhook": exactly(
        {
            **SCHEMAS["Webhook"]["properties"],
            "owner": TEXT,
            "all_owners": {"type": "boolean"},
        }
    ),
    "OwnedWebhookPage": exactly(
        {"webhooks": array(ref("OwnedWebhook")), "next_cursor": optional(TEXT)}
    ),
    "OwnedJob": exactly(
        {
            **SCHEMAS["Job"]["properties"],
            "owner": TEXT,
            "upstream": TEXT,
            "request_id": optional(TEXT),
            "lost_since": optional(TIME),
        }
    ),
    "OwnedJobPage": exactly({"jobs": array(ref("OwnedJob")), "next_cursor": optional(TEXT)}),
    "JobEventPage": exactly({"events": array(ref("Event")), "next_after": optional(COUNT)}),
    "JobDeliveries": exactly(
        {
            "deliveries": array(
                exactly(
                    {
                        **SCHEMAS["Delivery"]["properties"],
                        "destination": {**TEXT, "description": "A webhook's id, or `convex`."},
                    }
                )
            )
        }
    ),
    "JobReplay": {
        **some_of({"webhook_id": _NAME, "event": one_of(EventType)}, "webhook_id"),
        "description": "To this webhook; of one type of events, or of all that it takes.",
    },
    "JobReplayed": exactly({"replayed": COUNT}),
    "Replay": {
        **some_of({"delivery_id": TEXT, "since": TIME, "cursor": optional(TEXT)}),
        "description": "One delivery by its id, or what was missed since a time.",
    },
    "Replayed": exactly({"replayed": COUNT, "next_cursor": optional(TEXT)}),
    "AuditEntry": exactly(
        {
            "at": TIME,
            "action": one_of(ACTIONS),
            "webhook_id": TEXT,
            "actor": {**TEXT, "description": "key:<id>, operator, gateway or anonymous."},
            "details": {"type": "object"},
        }
    ),
    "AuditPage": exactly({"entries": array(ref("AuditEntry")), "next_cursor": optional(TEXT)}),
    "DeadLetter": exactly(
        {
            "id": TEXT,
            "operation": {**TEXT, "description": "A name under `convex.functions`."},
            "job_id": {**TEXT, "description": "The job's id, or the webhook's that changed."},
            "attempts": COUNT,
            "ended_at": optional(TIME),
            "error_kind": optional(TEXT),
            "detail": {**TEXT, "description": "What happened, and what to do."},
        }
    ),
    "DeadLetterPage": exactly({"dead": array(ref("DeadLetter")), "next_cursor": optional(TEXT)}),
    "DeadLetterReplay": {
        "oneOf": [exactly({"id": TEXT}), exactly({"all": {"const": True}})],
        "description": "One dead letter by its id, or all of them.",
    },
    "DeadLettersReplayed": exactly({"replayed": COUNT, "no_longer_kept": COUNT}),
}


@cache
def admin_document() -> Schema:
    """What operators ask for with a key of the scope `admin`.

    That is keys, jobs, webhooks, the audit log and Convex.

    Probes (`/health`, `/metrics`, `/drain`) ask for no key, and are described in the docs.
    """
    paths = {**_key_paths(), **_job_paths(), **_webhook_paths(), **_convex_paths()}
    return document_of("Gateway: admin listener", paths, {**SCHEMAS, **_SCHEMAS})


def _key_paths() -> Schema:
    key_id = parameter("key_id", _NAME, where="path")
    limit = parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000})
    owner = parameter("owner", TEXT)
    return {
        "/keys": {
            "get": operation(
                "listKeys",
                "Keys, of the policy file first.",
                200,
                "KeyPage",
                parameters=(owner, parameter("cursor", TEXT), limit),
            ),
            "post": operation(
                "createKey",
                "A new key, shown this once.",
                201,
                "IssuedKey",
                body="KeyCreation",
                errors=("409",),
            ),
        },
        "/keys/{key_id}": {
            "parameters": [key_id],
            "get": operation("getKey", "A key of the store.", 200, "Key", errors=("404",)),
            "delete": operation("revokeKey", "It is revoked.", 204, None, errors=("404", "409")),
        },
        "/keys/{key_id}/rotate": {
            "parameters": [key_id],
            "post": operation(
                "rotateKey",
                "Its successor, shown this once.",
                201,
                "IssuedKey",
                body="KeyRotation",
                body_optional=True,
                errors=("404", "409"),
            ),
        },
    }


def _job_paths() -> Schema:
    job_id = parameter("job_id", _NAME, where="path")
    after = parameter("after", {"type": "integer", "minimum": 0})
    limit = parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_EVENTS})
    return {
        "/jobs": {
            "get": operation(
                "listJobs",
                "Every owner's jobs, newest first.",
                200,
                "OwnedJobPage",
                parameters=(
                    *PAGING,
                    parameter("owner", _NAME),
                    parameter("state", one_of(State)),
                    parameter("subject", _NAME),
                    parameter("since", TIME),
                    parameter("until", TIME),
                ),
            )
        },
        _JOB: {
            "parameters": [job_id],
            "get": operation("getJob", "A job.", 200, "OwnedJob", errors=("404",)),
        },
        f"{_JOB}/events": {
            "parameters": [job_id],
            "get": operation(
                "listEventsOfJob",
                "Its events in order.",
                200,
                "JobEventPage",
                parameters=(after, limit),
                errors=("404",),
            ),
        },
        f"{_JOB}/deliveries": {
            "parameters": [job_id],
            "get": operation(
                "listDeliveriesOfJob",
                "The newest deliveries of its events, by receiver.",
                200,
                "JobDeliveries",
                errors=("404",),
            ),
        },
        f"{_JOB}/replay": {
            "parameters": [job_id],
            "post": operation(
                "replayJob",
                "Its events are on their way to a webhook again.",
                202,
                "JobReplayed",
                body="JobReplay",
                errors=("404", "409"),
            ),
        },
    }


def _webhook_paths() -> Schema:
    times = (parameter("since", TIME), parameter("until", TIME))
    return {
        "/webhooks": {
            "get": operation(
                "listWebhooks",
                "Every owner's webhooks, oldest first.",
                200,
                "OwnedWebhookPage",
                parameters=(*PAGING, WEBHOOK_STATUS, JOB_ID, parameter("owner", _NAME)),
            )
        },
        _ID: {
            "parameters": [WEBHOOK_ID],
            "get": operation("getWebhook", "A webhook.", 200, "OwnedWebhook", errors=("404",)),
        },
        f"{_ID}/deliveries": {
            "parameters": [WEBHOOK_ID],
            "get": operation(
                "listDeliveries",
                "Its deliveries with their attempts, newest first.",
                200,
                "DeliveryPage",
                parameters=(*PAGING, *DELIVERY_FILTERS),
                errors=("404",),
            ),
        },
        f"{_ID}/replay": {
            "parameters": [WEBHOOK_ID],
            "post": operation(
                "replay",
                "It is on its way again.",
                202,
                "Replayed",
                body="Replay",
                errors=("404", "409"),
            ),
        },
        "/audit": {
            "get": operation(
                "listAudit",
                "Who changed what, and how deliveries ended; newest first.",
                200,
                "AuditPage",
                parameters=(
                    *PAGING,
                    parameter("webhook_id", _NAME),
                    parameter("action", one_of((*FAMILIES, *ACTIONS))),
                    *times,
                ),
            )
        },
    }


def _convex_paths() -> Schema:
    return {
        "/convex/dead": {
            "get": operation(
                "listDeadLetters",
                "What Convex refused, newest first.",
                200,
                "DeadLetterPage",
                parameters=PAGING,
            )
        },
        "/convex/replay": {
            "post": operation(
                "replayDeadLetters",
                "They are on their way again.",
                202,
                "DeadLettersReplayed",
                body="DeadLetterReplay",
                errors=("404", "409"),
            )
        },
    }
