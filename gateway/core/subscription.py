"""The rules on a webhook's fields, whoever sets them: a management request or a job's creation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gateway.core.address import AddressRule, check_url
from gateway.core.filter import compile_filter
from gateway.core.job import EventType
from gateway.core.violation import Violations, json_type
from gateway.core.webhook import ALL_EVENTS

MAX_HEADERS = 16
MAX_HEADER_VALUE_LENGTH = 1024
EVENT_NAMES = (*(event.value for event in EventType), ALL_EVENTS)

# What the gateway sets itself, what frames a message, and what only proxies and browsers may say.
RESERVED_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-real-ip",
        "x-request-id",
    }
)
RESERVED_PREFIXES = (
    "content-",
    "proxy-",
    "sec-",
    "webhook-",
    "x-forwarded-",
    "x-klipstream-",
    "x-webhook-",
)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 section 5.6.2
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")  # section 5.5, ASCII only


def read_url(value: object, rule: AddressRule, violations: Violations, *path: str | int) -> str:
    """A receiver's URL; what breaks a rule is noted."""
    if not isinstance(value, str):
        violations.add(f"must be a string, not {json_type(value)}", *path)
        return ""
    if detail := url_fault(value, rule):
        violations.add(detail, *path)
    return value


def url_fault(url: str, rule: AddressRule) -> str | None:
    """Why this URL cannot be a receiver's; None when it can."""
    try:
        check_url(url, rule)
    except ValueError as error:
        return str(error)
    return None


def read_events(value: object, violations: Violations, *path: str | int) -> tuple[str, ...]:
    """Event names, each once; what breaks a rule is noted."""
    names = _strings(value, violations, *path)
    if isinstance(value, list) and not value:
        violations.add("must name at least one event; job.* means all", *path)
    for index, name in names:
        if name not in EVENT_NAMES:
            known = ", ".join(EVENT_NAMES)
            violations.add(f"{name!r} is not an event; known are {known}", *path, index)
    return tuple(name for _, name in names)


def read_filter(value: object, violations: Violations, *path: str | int) -> str | None:
    """A JMESPath predicate over the envelope; what breaks a rule is noted."""
    if not isinstance(value, str):
        violations.add(f"must be a string, not {json_type(value)}", *path)
        return None
    try:
        compile_filter(value)
    except ValueError as error:
        violations.add(str(error), *path)
    return value


def read_names(
    value: object, known: frozenset[str], violations: Violations, *path: str | int
) -> tuple[str, ...]:
    """Names out of `known`, each once; what breaks a rule is noted."""
    names = _strings(value, violations, *path)
    if isinstance(value, list) and not value:
        violations.add("must name at least one field; null means all", *path)
    for index, name in names:
        if name not in known:
            listed = ", ".join(sorted(known))
            violations.add(f"{name!r} is not a field of data; known are {listed}", *path, index)
    return tuple(name for _, name in names)


def read_headers(value: object, violations: Violations, *path: str | int) -> Mapping[str, str]:
    """Static request headers (RFC 9110 section 5); what breaks a rule is noted."""
    if not isinstance(value, dict):
        violations.add(f"must be an object, not {json_type(value)}", *path)
        return {}
    if len(value) > MAX_HEADERS:
        violations.add(f"has {len(value)} headers; at most {MAX_HEADERS} are sent", *path)
    seen: set[str] = set()
    for name, text in value.items():
        if detail := _header_fault(name, text, seen):
            violations.add(detail, *path, name)
        seen.add(name.lower())
    return value


def is_reserved(name: str) -> bool:
    """True for a header that a webhook's own `headers` cannot set."""
    return name.lower() in RESERVED_HEADERS or name.lower().startswith(RESERVED_PREFIXES)


def _header_fault(name: str, text: object, seen: set[str]) -> str | None:
    if not _TOKEN.fullmatch(name):
        return "is not a header name"
    if name.lower() in seen:
        return "is given twice, in different letter case"
    if is_reserved(name):
        return "is set by the gateway and cannot be given"
    if not isinstance(text, str):
        return f"must be a string, not {json_type(text)}"
    if len(text) > MAX_HEADER_VALUE_LENGTH or not _FIELD_VALUE.fullmatch(text):
        return f"must have 1 to {MAX_HEADER_VALUE_LENGTH} printable ASCII characters"
    return None


def _strings(value: object, violations: Violations, *path: str | int) -> Sequence[tuple[int, str]]:
    """The distinct strings of an array with their positions."""
    if not isinstance(value, list):
        violations.add(f"must be an array of strings, not {json_type(value)}", *path)
        return ()
    names: dict[str, int] = {}
    for index, item in enumerate(value):
        if not isinstance(item, str):
            violations.add(f"must be a string, not {json_type(item)}", *path, index)
        elif item in names:
            violations.add(f"names {item!r} again", *path, index)
        else:
            names[item] = index
    return [(index, name) for name, index in names.items()]
