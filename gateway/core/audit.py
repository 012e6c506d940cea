"""The audit log: who changed which webhook, and how every delivery ended. Never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from gateway.core.outbox import DeliveryStatus
from gateway.core.webhook import Webhook

GATEWAY, OPERATOR, ANONYMOUS = "gateway", "operator", "anonymous"
_KEY_PREFIX = "key:"


class Change(StrEnum):
    """What can be done to a webhook."""

    CREATED = "webhook.created"
    REPLACED = "webhook.replaced"
    CHANGED = "webhook.changed"
    ROTATED = "webhook.secret_rotated"
    DELETED = "webhook.deleted"
    DISABLED = "webhook.disabled"
    EXPIRED = "webhook.expired"
    TESTED = "webhook.tested"
    REDELIVERED = "webhook.redelivered"
    RECOVERED = "webhook.recovered"


def ended(status: DeliveryStatus) -> str:
    """The action of a delivery's end, such as `delivery.succeeded`."""
    return f"delivery.{status.value}"


FAMILIES = ("webhook.*", "delivery.*")
ACTIONS = (
    *(change.value for change in Change),
    *(ended(status) for status in DeliveryStatus if status.final),
)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line; `at` is epoch seconds, `action` one of `ACTIONS`.

    `actor` is `key:<id>`, `operator` (the admin listener), `gateway`, or `anonymous` where no key
    is asked for. `details` is JSON: ids, words and counts.
    """

    at: float
    action: str
    webhook_id: str
    actor: str = GATEWAY
    details: Mapping[str, Any] = field(default_factory=dict)


def key_actor(key_id: str | None) -> str:
    """The actor of a request with this key's id; None: no key was asked for."""
    return ANONYMOUS if key_id is None else _KEY_PREFIX + key_id


def change_entry(
    change: Change, webhook: Webhook, at: float, actor: str = GATEWAY, **details: Any
) -> AuditEntry:
    """The line of a change. Of the URL only the host: its path may itself be a credential."""
    said = {
        "owner": webhook.owner,
        "host": urlsplit(webhook.url).hostname,
        "status": webhook.status.value,
        **details,
    }
    return AuditEntry(at, change.value, webhook.id, actor, said)


def matches(wanted: str | None, action: str) -> bool:
    """True when `action` is the wanted one, or of the wanted family (`webhook.*`)."""
    if wanted is None or wanted == action:
        return True
    return wanted.endswith(".*") and action.startswith(wanted[:-1])
