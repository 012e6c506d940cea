"""Webhooks and their deliveries as the JSON that clients get."""

from __future__ import annotations

from typing import Any

from gateway.core.event import rfc3339
from gateway.core.outbox import Attempt, Delivery
from gateway.core.webhook import Webhook

_HINT_MIN_LENGTH = 24  # the last four characters of a shorter secret would give too much away


def encode_webhook(webhook: Webhook, *, reveal: bool = False) -> dict[str, Any]:
    """The resource; `reveal` adds the secret, which only creation and rotation answer with."""
    document = {
        "id": webhook.id,
        "url": webhook.url,
        "events": webhook.events,
        "job_id": webhook.job_id,
        "filter": webhook.filter,
        "fields": webhook.fields,
        "headers": dict(webhook.headers),
        "description": webhook.description,
        "status": webhook.status.value,
        "disabled_reason": webhook.disabled_reason,
        "timeout_seconds": webhook.timeout_seconds,
        "max_retries": webhook.max_retries,
        "max_per_second": webhook.max_per_second,
        "secret_hint": _hint(webhook.secret),
        "previous_secret_expires_at": _time(webhook.previous_secret_expires_at),
        "consecutive_failures": webhook.consecutive_failures,
        "last_success_at": _time(webhook.last_success_at),
        "created_at": rfc3339(webhook.created_at),
    }
    return {**document, "secret": webhook.secret} if reveal else document


def encode_delivery(delivery: Delivery) -> dict[str, Any]:
    """A line of the delivery log with its attempts."""
    message = delivery.message
    return {
        "id": message.id,
        "event_id": message.event_id,
        "event": message.kind,
        "job_id": message.job_id,
        "sequence": message.sequence,
        "status": message.status.value,
        "attempt_count": len(delivery.attempts),
        "created_at": rfc3339(message.created_at),
        "finished_at": _time(delivery.finished_at),
        "next_attempt_at": rfc3339(message.due_at) if message.status.waiting else None,
        "attempts": [_encode_attempt(attempt) for attempt in delivery.attempts],
    }


def _encode_attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "started_at": rfc3339(attempt.started_at),
        "duration_seconds": attempt.duration_seconds,
        "status_code": attempt.status_code,
        "error_kind": attempt.error_kind,
        "detail": attempt.detail,
        "response_excerpt": attempt.response_excerpt,
    }


def _hint(secret: str) -> str:
    return "…" + secret[-4:] if len(secret) >= _HINT_MIN_LENGTH else "…"


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
