"""A webhook subscription, and which events it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.core.filter import evaluate

ALL_EVENTS = "job.*"
MIN_PER_SECOND = 1.0  # slower, and what waits its turn would outlast its lease


class WebhookStatus(StrEnum):
    """Whether a webhook is sent anything."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One subscription; times are epoch seconds, `secret` is `whsec_…`.

    `job_id` limits it to one job (callbacks given with a creation); `all_owners` lets it see jobs
    of every owner (scope `webhooks:all`). `revision` counts changes. `timeout_seconds` and
    `max_retries` None mean the setting's. The gateway itself counts from `consecutive_failures` on:
    `failing_since` is the first failure after the last success, `exhausted_count` how many
    deliveries were given up since then.
    """

    id: str
    owner: str
    url: str
    secret: str = field(repr=False)
    created_at: float
    updated_at: float
    revision: int = 1
    events: tuple[str, ...] = (ALL_EVENTS,)
    job_id: str | None = None
    filter: str | None = None
    fields: tuple[str, ...] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    status: WebhookStatus = WebhookStatus.ACTIVE
    disabled_reason: str | None = None
    all_owners: bool = False
    timeout_seconds: float | None = None
    max_retries: int | None = None
    max_per_second: float | None = None
    previous_secret: str | None = field(default=None, repr=False)
    previous_secret_expires_at: float | None = None
    consecutive_failures: int = 0
    last_success_at: float | None = None
    failing_since: float | None = None
    exhausted_count: int = 0


@dataclass(frozen=True, slots=True)
class DisableRule:
    """When a webhook counts as dead: so long without success, and so many deliveries given up."""

    after_seconds: float = 120 * 3600.0
    exhausted: int = 5


def dead_reason(webhook: Webhook, rule: DisableRule, now: float) -> str | None:
    """Why the webhook is to be disabled; None while it may still recover.

    The time runs from the first failure after a success: an endpoint that was never asked meanwhile
    has not failed, and one that flaps begins anew with each success.
    """
    since = webhook.failing_since
    if (
        since is None
        or webhook.exhausted_count < rule.exhausted
        or now - since < rule.after_seconds
    ):
        return None
    hours = rule.after_seconds / 3600
    return (
        f"No delivery succeeded for {hours:g} hours, and {webhook.exhausted_count} were given up."
    )


def subscribes(webhook: Webhook, owner: str, job_id: str, event_type: str) -> bool:
    """True when an event of this owner's job is for this webhook, its filter apart."""
    if webhook.status is not WebhookStatus.ACTIVE:
        return False
    if webhook.job_id is not None and webhook.job_id != job_id:
        return False
    if webhook.owner != owner and not webhook.all_owners:
        return False
    return any(wanted in (event_type, ALL_EVENTS) for wanted in webhook.events)


def passes(webhook: Webhook, envelope: Mapping[str, Any]) -> bool:
    """True when the webhook's filter, a JMESPath predicate, holds for the envelope.

    Raises ValueError when the filter cannot be evaluated on it.
    """
    return webhook.filter is None or evaluate(webhook.filter, envelope)


def project(webhook: Webhook, envelope: Mapping[str, Any]) -> Mapping[str, Any]:
    """The envelope with `data` cut down to the webhook's include-list."""
    if webhook.fields is None:
        return envelope
    data = envelope["data"]
    return {**envelope, "data": {name: data[name] for name in webhook.fields if name in data}}
