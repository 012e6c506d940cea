"""What follows an attempt: delivered, tried again later, or dead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum

from gateway.core.outbox import DeliveryStatus

RETRY_AFTER_CAP_SECONDS = 24 * 3600.0
JITTER_SHARE = 0.2
_DELAY_SECONDS = re.compile(r"[0-9]{1,12}")


class ErrorKind(StrEnum):
    """Why an attempt failed; a bounded metric label."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    HTTP_STATUS = "http_status"
    BLOCKED_ADDRESS = "blocked_address"
    RESPONSE_TOO_LARGE = "response_too_large"
    REJECTED = "rejected"
    CONFIGURATION = "configuration"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt met; `error_kind` None means success.

    `retry_after_seconds` is what the receiver asked for; `gone` is a 410: never call again.
    `permanent`: trying again is pointless, and the message ends as `final_status`.
    """

    duration_seconds: float
    error_kind: ErrorKind | None = None
    status_code: int | None = None
    detail: str = ""
    response_excerpt: str = ""
    retry_after_seconds: float | None = None
    permanent: bool = False
    gone: bool = False
    final_status: DeliveryStatus = DeliveryStatus.EXHAUSTED

    @property
    def ok(self) -> bool:
        """True when the receiver took the message."""
        return self.error_kind is None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at `at` (epoch seconds)."""

    at: float


@dataclass(frozen=True, slots=True)
class Dead:
    """No further attempt; `status` says why: exhausted, blocked, cancelled, skipped, superseded."""

    status: DeliveryStatus


Verdict = Delivered | RetryAt | Dead


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds to wait after attempt 1, 2, 3 …; as many retries as there are delays."""

    delays_seconds: Sequence[float]


def decide(
    schedule: Schedule, attempt: int, outcome: Outcome, now: float, jitter: float
) -> Verdict:
    """The verdict after attempt number `attempt` (from 1); `jitter` is uniform in [0, 1).

    Jitter only ever lengthens a delay, so that many failures do not come back in one burst and
    a `Retry-After` is never undercut.
    """
    if outcome.ok:
        return Delivered()
    if outcome.error_kind is ErrorKind.BLOCKED_ADDRESS:
        return Dead(DeliveryStatus.BLOCKED)
    if outcome.permanent:
        return Dead(outcome.final_status)
    if outcome.gone or attempt > len(schedule.delays_seconds):
        return Dead(DeliveryStatus.EXHAUSTED)
    delay = schedule.delays_seconds[attempt - 1]
    if outcome.retry_after_seconds is not None:
        delay = max(delay, min(outcome.retry_after_seconds, RETRY_AFTER_CAP_SECONDS))
    return RetryAt(now + delay * (1.0 + JITTER_SHARE * jitter))


def parse_retry_after(value: str, now: float) -> float | None:
    """The seconds from `now` that a `Retry-After` field asks for (RFC 9110 section 10.2.3).

    Both its forms count: a number of seconds, and a date (one gone by is 0). None for any other.
    """
    text = value.strip()
    if _DELAY_SECONDS.fullmatch(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, at - now)
