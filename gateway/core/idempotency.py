"""Idempotency keys of creations: what a repeated key means.

The header is that of draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gateway.core.error import GatewayError, InvalidRequest, UpstreamError

HEADER = "Idempotency-Key"
MAX_LENGTH = 255
# The draft wants a String (RFC 9651 section 3.3.3); most clients send the bare value.
_QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"(?:\s*;.*)?')
_BARE = re.compile(r"[A-Za-z0-9._~:/+=@-]+")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A creation under an idempotency key, before its answer is known.

    `scope` is the owner, `token` tells this attempt from another's; `request_id` is the request's,
    by which its job can be found. From `lease_until` on the attempt is taken to have died; the key
    is forgotten at `expires_at`. Times are epoch seconds.
    """

    scope: str
    key: str
    fingerprint: str
    token: str
    request_id: str
    started_at: float
    lease_until: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a creation was answered with."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a key: its reservation, and the answer once there is one."""

    reservation: Reservation
    answer: StoredAnswer | None = None


class Repeat(StrEnum):
    """What a repeated key means."""

    REPLAYED = "replayed"  # the answer is known
    REUSED = "reused"  # it stood for another request
    OUTSTANDING = "outstanding"  # its first request is under way
    UNKNOWN = "unknown"  # its first request was interrupted: the job may exist


class Outcome(StrEnum):
    """What becomes of a reservation when its request has ended."""

    KEPT = "kept"  # the answer is stored
    FREED = "freed"  # nothing was created: the key may be used again
    UNKNOWN = "unknown"  # the job may exist


def read_key(values: Sequence[str]) -> str:
    """The key in the values of `Idempotency-Key`. Raises InvalidRequest for what is none."""
    if len(values) != 1:
        raise InvalidRequest(f"The request carries {len(values)} idempotency keys; send one.")
    value = values[0].strip()
    if (quoted := _QUOTED.fullmatch(value)) is not None:
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    elif not _BARE.fullmatch(value):
        raise InvalidRequest(
            f'{HEADER} must be a quoted string, like "8e03978e-40d5-43e8-bc93-6894a57f9324".'
        )
    if len(value) > MAX_LENGTH:
        raise InvalidRequest(f"{HEADER} must not be longer than {MAX_LENGTH} characters.")
    return value


def fingerprint(method: str, target: str, content_type: str, body: bytes) -> str:
    """Tells requests apart that carry one key: the same has every byte of these the same."""
    digest = hashlib.sha256()
    for part in (method.encode(), target.encode("utf-8", "surrogateescape"), content_type.encode()):
        digest.update(b"%d:%b" % (len(part), part))
    digest.update(body)
    return digest.hexdigest()


def judge_repeat(entry: Entry, wanted: Reservation, now: float) -> Repeat:
    """What a request means whose key is taken."""
    if entry.reservation.fingerprint != wanted.fingerprint:
        return Repeat.REUSED
    if entry.answer is not None:
        return Repeat.REPLAYED
    return Repeat.OUTSTANDING if now < entry.reservation.lease_until else Repeat.UNKNOWN


def judge_answer(status: int) -> Outcome:
    """What an upstream's answer says of the creation.

    A refusal created nothing (4xx, and 503: RFC 9110 section 15.6.4); after any other failure the
    job may be there or not, and asking again gets the same answer, not another job.
    """
    return Outcome.FREED if 400 <= status < 500 or status == 503 else Outcome.KEPT


def judge_failure(error: BaseException) -> Outcome:
    """What it says of the creation that there is no answer."""
    if isinstance(error, UpstreamError):
        return Outcome.UNKNOWN if error.sent else Outcome.FREED
    # The gateway's own refusals come before anything is sent.
    return Outcome.FREED if isinstance(error, GatewayError) else Outcome.UNKNOWN
