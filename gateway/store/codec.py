"""How stores write things down: jobs, webhooks, keys as JSON documents, page positions as cursors.

A field that a document lacks takes its default, one that is not known any more is left out: files
outlive the release that wrote them.
"""

from __future__ import annotations

import base64
import math
from dataclasses import fields
from typing import Any

import orjson

from gateway.core.credential import Key
from gateway.core.error import InvalidRequest
from gateway.core.job import Job, State
from gateway.core.webhook import Webhook, WebhookStatus

_JOB_FIELDS = frozenset(field.name for field in fields(Job))
_KEY_FIELDS = frozenset(field.name for field in fields(Key) if field.init)
_WEBHOOK_FIELDS = frozenset(field.name for field in fields(Webhook))


def job_document(job: Job) -> bytes:
    """Every field of the job as JSON. Raises TypeError for results that JSON cannot hold."""
    return orjson.dumps(job)


def job_from_document(document: bytes) -> Job:
    """The job that `job_document` wrote."""
    values = _known(document, _JOB_FIELDS)
    values["state"] = State(values["state"])
    for name in ("webhook_urls", "webhook_events"):
        values[name] = tuple(values.get(name, ()))
    return Job(**values)


def webhook_document(webhook: Webhook) -> bytes:
    """Every field of the webhook as JSON, its secrets included."""
    return orjson.dumps(webhook)


def webhook_from_document(document: bytes, **newer: Any) -> Webhook:
    """The webhook that `webhook_document` wrote; fields given here stand over the document's."""
    values = _known(document, _WEBHOOK_FIELDS) | newer
    for name in ("events", "fields"):
        if values.get(name) is not None:
            values[name] = tuple(values[name])
    if "status" in values:
        values["status"] = WebhookStatus(values["status"])
    return Webhook(**values)


def key_document(key: Key) -> bytes:
    """Every field of the key as JSON; of the key itself only the hash."""
    values = {name: getattr(key, name) for name in _KEY_FIELDS}
    return orjson.dumps(values | {"scopes": sorted(key.scopes)})


def key_from_document(document: bytes, **changed: Any) -> Key:
    """The key that `key_document` wrote, with what has `changed` since."""
    values = _known(document, _KEY_FIELDS) | changed
    values["scopes"] = frozenset(values["scopes"])
    values["networks"] = tuple(values.get("networks", ()))
    return Key(**values)


def encode_cursor(at: float, identifier: str) -> str:
    """The opaque position after the item with this time (epoch seconds) and id, safe in a URL."""
    return base64.urlsafe_b64encode(orjson.dumps([at, identifier])).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[float, str]:
    """The time and id in a cursor; raises InvalidRequest unless `encode_cursor` made it."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        position = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except ValueError as error:
        raise malformed_cursor() from error
    match position:
        case [float(at), str(identifier)] if math.isfinite(at):
            return at, identifier
        case [int(at), str(identifier)] if not isinstance(at, bool):
            return float(at), identifier
        case _:
            raise malformed_cursor()


def malformed_cursor() -> InvalidRequest:
    """The error for a position that no store gave out."""
    return InvalidRequest(
        "The cursor is not one that was handed out; "
        "take it unchanged from the previous page, or leave it away to start at the first."
    )


def _known(document: bytes, names: frozenset[str]) -> dict[str, Any]:
    values: dict[str, Any] = orjson.loads(document)
    return {name: value for name, value in values.items() if name in names}
