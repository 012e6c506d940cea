"""What a request is to be answered with: one verdict, by what is stored (RFC 9111 section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.cache_control import NOTHING_SAID, CacheControl, Headers, request_control
from gateway.core.freshness import StoredResponse
from gateway.core.vary import is_answered_by


# Verdicts are made for every request: not frozen, since that would double what they cost.
@dataclass(slots=True)
class Hit:
    """Serve it; the upstream is not asked."""

    entry: StoredResponse


@dataclass(slots=True)
class Stale:
    """Serve it, and ask the upstream meanwhile (RFC 5861 section 3)."""

    entry: StoredResponse


@dataclass(slots=True)
class Validate:
    """Ask the upstream whether it still holds; `why` is a reason of RFC 9211 section 2.2."""

    entry: StoredResponse
    why: str


@dataclass(slots=True)
class Miss:
    """Ask the upstream; `why` is a reason of RFC 9211 section 2.2."""

    why: str


@dataclass(slots=True)
class NothingStored:
    """Nothing stored will do, and the client wants nothing else (section 5.2.1.7): 504."""


Verdict = Hit | Stale | Validate | Miss | NothingStored


def verdict(request: Headers, variants: Sequence[StoredResponse], now: float) -> Verdict:
    """The verdict for a request with these fields, of which `variants` are stored, newest first."""
    control = request_control(request)
    entry = _selected(request, variants)
    if entry is None or (not entry.terms.shared and "Authorization" in request):
        asked: Validate | Miss = _miss(control, variants)
    elif control is not NOTHING_SAID and (reason := _refuses(control, entry, now)):
        asked = Validate(entry, reason)
    elif entry.terms.is_fresh(now) or _accepts_stale(control, entry, now):
        return Hit(entry)
    elif (seconds := entry.terms.stale_while_seconds) and entry.terms.may_be_stale(now, seconds):
        return Stale(entry)
    else:
        asked = Validate(entry, "stale")
    return NothingStored() if control.only_if_cached else asked


def _selected(request: Headers, variants: Sequence[StoredResponse]) -> StoredResponse | None:
    for each in variants:
        if not each.vary or is_answered_by(request, each.vary):
            return each
    return None


def _miss(control: CacheControl, variants: Sequence[StoredResponse]) -> Miss:
    if control.no_cache:
        return Miss("request")
    return Miss("vary-miss" if variants else "uri-miss")


def may_serve_on_error(request: Headers, entry: StoredResponse, now: float, seconds: float) -> bool:
    """True when a stored response may stand in for an upstream that failed (section 4.2.4).

    For `seconds` beyond its freshness, or as long as either side allows (RFC 5861 section 4).
    """
    asked = request_control(request)
    if asked.no_cache or asked.max_age is not None or asked.min_fresh is not None:
        return False
    allowed = max(seconds, entry.terms.stale_error_seconds, asked.stale_if_error or 0)
    return entry.terms.may_be_stale(now, allowed)


def _refuses(control: CacheControl, entry: StoredResponse, now: float) -> str | None:
    """Why the client will not have it (section 5.2.1)."""
    if control.no_cache:
        return "request"
    if control.max_age is not None and entry.age_seconds(now) > control.max_age:
        return "request"
    if control.min_fresh is not None and entry.terms.fresh_until - now < control.min_fresh:
        return "request"
    return None


def _accepts_stale(control: CacheControl, entry: StoredResponse, now: float) -> bool:
    return control.max_stale is not None and entry.terms.may_be_stale(now, control.max_stale)
