"""What clients send about webhooks, checked whole: every broken rule is named at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.address import AddressRule
from gateway.core.job import EventType
from gateway.core.signature import SECRET_PREFIX, secret_key
from gateway.core.subscription import (
    read_events,
    read_filter,
    read_headers,
    read_names,
    read_url,
)
from gateway.core.violation import Violations, json_type
from gateway.core.webhook import ALL_EVENTS, MIN_PER_SECOND, Webhook, WebhookStatus
from gateway.web.query import parse_time
from gateway.web.webhook_document import encode_webhook
from gateway.web.webhook_sample import DATA_FIELDS

MAX_DESCRIPTION_LENGTH = 500
MAX_OVERLAP_SECONDS = 7 * 86400.0
MAX_PER_SECOND = 1000.0
DEFAULT_OVERLAP_SECONDS = 86400.0

DEFAULTS: Mapping[str, Any] = {
    "events": (ALL_EVENTS,),
    "filter": None,
    "fields": None,
    "headers": {},
    "description": None,
    "status": WebhookStatus.ACTIVE,
    "timeout_seconds": None,
    "max_retries": None,
    "max_per_second": None,
}
SETTABLE = frozenset({"url", *DEFAULTS})
# A PUT may carry what the gateway sets as a GET gave it: these must then still be right, the rest
# (counters, times) may have moved meanwhile and is passed over.
_FIXED = ("id", "job_id", "created_at")
READ_ONLY = frozenset(
    {
        *_FIXED,
        "disabled_reason",
        "secret_hint",
        "previous_secret_expires_at",
        "consecutive_failures",
        "last_success_at",
    }
)


def read_creation(document: Mapping[str, Any], rule: AddressRule) -> dict[str, Any]:
    """The fields of a new webhook with defaults; `secret` is None when none was given.

    Raises `UnprocessableContent` naming every field that breaks a rule, as all of these do.
    """
    violations = Violations()
    given = _read(document, SETTABLE | {"secret"}, rule, violations)
    _require_url(document, violations)
    violations.raise_any()
    return {**DEFAULTS, "secret": None, **given}


def read_replacement(
    document: Mapping[str, Any], current: Webhook, rule: AddressRule
) -> dict[str, Any]:
    """Every settable field of a webhook; what is absent takes its default, the secret stays."""
    violations = Violations()
    known = encode_webhook(current)
    for name in _FIXED:
        if name in document and document[name] != known[name]:
            violations.add("is set by the gateway and cannot change", name)
    rest = {name: value for name, value in document.items() if name not in READ_ONLY}
    kept: dict[str, Any] = {}
    if current.status is WebhookStatus.DISABLED and rest.get("status") == current.status:
        kept["status"] = WebhookStatus(rest.pop("status"))  # sent back as it was read
    given = _read(rest, SETTABLE, rule, violations)
    _require_url(rest, violations)
    violations.raise_any()
    return {**DEFAULTS, **given, **kept}


def read_change(document: Mapping[str, Any], rule: AddressRule) -> dict[str, Any]:
    """The fields that a merge patch sets (RFC 7396); null takes one back to its default."""
    violations = Violations()
    given = _read(document, SETTABLE, rule, violations)
    violations.raise_any()
    return given


def read_rotation(document: Mapping[str, Any]) -> tuple[str | None, float]:
    """A rotation's own secret, if given, and for how many seconds the old one still signs too."""
    violations = Violations()
    _refuse_unknown(document, {"secret", "overlap_seconds"}, violations)
    secret = document.get("secret")
    if secret is not None:
        secret = _secret(secret, violations)
    overlap = _number(
        document.get("overlap_seconds", DEFAULT_OVERLAP_SECONDS),
        (0, MAX_OVERLAP_SECONDS),
        violations,
        "overlap_seconds",
    )
    violations.raise_any()
    return secret, overlap


def read_test(document: Mapping[str, Any]) -> EventType | None:
    """The event whose sample a test sends; None for a plain test."""
    violations = Violations()
    _refuse_unknown(document, {"event"}, violations)
    event = document.get("event")
    names = [kind.value for kind in EventType]
    if event is not None and event not in names:
        violations.add(f"must be one of {', '.join(names)}", "event")
    violations.raise_any()
    return None if event is None else EventType(event)


def read_recovery(document: Mapping[str, Any]) -> tuple[float, str | None]:
    """Since when (epoch seconds) to send missed events again, and the cursor to go on from."""
    violations = Violations()
    _refuse_unknown(document, {"since", "cursor"}, violations)
    since, text = 0.0, document.get("since")
    if not isinstance(text, str):
        violations.add("is required: an RFC 3339 time such as 2026-01-01T00:00:00Z", "since")
    else:
        try:
            since = parse_time(text)
        except ValueError as error:
            violations.add(str(error), "since")
    cursor = document.get("cursor")
    if cursor is not None:
        cursor = _text(cursor, 512, violations, "cursor")
    violations.raise_any()
    return since, cursor


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """One delivery by its id, or what was missed `since` (epoch seconds), from `cursor` on."""

    delivery_id: str | None = None
    since: float = 0.0
    cursor: str | None = None


def read_replay(document: Mapping[str, Any]) -> ReplayRequest:
    """What an operator wants sent again: `delivery_id`, or `since` as `read_recovery` has it."""
    if "delivery_id" not in document:
        return ReplayRequest(None, *read_recovery(document))
    violations = Violations()
    _refuse_unknown(document, {"delivery_id"}, violations)
    delivery_id = _text(document["delivery_id"], 512, violations, "delivery_id")
    violations.raise_any()
    return ReplayRequest(delivery_id)


def _read(
    document: Mapping[str, Any],
    known: Collection[str],
    rule: AddressRule,
    violations: Violations,
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in document.items():
        if name not in known:
            _refuse(name, known, violations)
        elif value is None and name in DEFAULTS:
            fields[name] = DEFAULTS[name]
        elif name == "url":
            fields[name] = read_url(value, rule, violations, name)
        elif not (name == "secret" and value is None):
            fields[name] = _READERS[name](value, violations)
    return fields


def _refuse_unknown(
    document: Mapping[str, Any], known: Collection[str], violations: Violations
) -> None:
    for name in document:
        if name not in known:
            violations.add_unknown(name, known)


def _refuse(name: str, known: Collection[str], violations: Violations) -> None:
    if name in READ_ONLY:
        violations.add("is set by the gateway", name)
    elif name == "secret":
        violations.add("changes by POST …/rotate only", name)
    else:
        violations.add_unknown(name, known)


def _require_url(document: Mapping[str, Any], violations: Violations) -> None:
    if "url" not in document:
        violations.add("is required: where the events go", "url")


def _secret(value: object, violations: Violations) -> str:
    text = value if isinstance(value, str) else ""
    if not text.startswith(SECRET_PREFIX):
        violations.add(f"must be {SECRET_PREFIX} and the base64 of 24 to 64 bytes", "secret")
        return text
    try:
        secret_key(text)
    except ValueError as error:
        violations.add(f"is refused: {error}", "secret")
    return text


def _description(value: object, violations: Violations) -> str:
    return _text(value, MAX_DESCRIPTION_LENGTH, violations, "description")


def _status(value: object, violations: Violations) -> WebhookStatus:
    choices = (WebhookStatus.ACTIVE, WebhookStatus.PAUSED)
    for status in choices:
        if value == status.value:
            return status
    violations.add("must be active or paused", "status")
    return WebhookStatus.ACTIVE


def _max_retries(value: object, violations: Violations) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10:
        violations.add("must be a whole number from 0 to 10", "max_retries")
        return 0
    return value


def _max_per_second(value: object, violations: Violations) -> float:
    return _number(value, (MIN_PER_SECOND, MAX_PER_SECOND), violations, "max_per_second")


def _number(value: object, bounds: tuple[float, float], violations: Violations, name: str) -> float:
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, int | float):
        violations.add(f"must be a number, not {json_type(value)}", name)
        return low
    if not low <= value <= high:
        violations.add(f"must be from {low:g} to {high:g}", name)
    return float(value)


def _text(value: object, limit: int, violations: Violations, name: str) -> str:
    if not isinstance(value, str):
        violations.add(f"must be a string, not {json_type(value)}", name)
        return ""
    if len(value) > limit:
        violations.add(f"must have at most {limit} characters", name)
    return value


_READERS = {
    "events": lambda value, violations: read_events(value, violations, "events"),
    "filter": lambda value, violations: read_filter(value, violations, "filter"),
    "fields": lambda value, violations: read_names(value, DATA_FIELDS, violations, "fields"),
    "headers": lambda value, violations: read_headers(value, violations, "headers"),
    "description": _description,
    "status": _status,
    "timeout_seconds": lambda value, violations: _number(
        value, (1, 30), violations, "timeout_seconds"
    ),
    "max_retries": _max_retries,
    "max_per_second": _max_per_second,
    "secret": _secret,
}
