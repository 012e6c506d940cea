"""Which responses a cache that many clients share may keep (RFC 9111 section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.cache_control import CacheControl, Headers, response_control
from gateway.core.freshness import (
    HEURISTIC_STATUS,
    Terms,
    born_at,
    explicit_lifetime,
    heuristic_lifetime,
)
from gateway.core.vary import ANY, varied_fields

# What belongs to one answer, not to the resource: identity, quota, and what caches themselves note.
_UNSTORED = frozenset(
    {
        *("age", "cache-status", "ratelimit", "ratelimit-policy", "x-request-id"),
        # RFC 9111 section 3.1: for the one proxy that the answer came by.
        *("proxy-authenticate", "proxy-authentication-info", "proxy-authorization"),
    }
)
_UNSTORED_PREFIX = "x-ratelimit-"
# Parts need combining, and a 304 updates what is stored instead (sections 3.3 and 4.3.3).
_NEVER_STORED = frozenset({206, 304})
# What `must-understand` asks about: those whose caching rules are carried out here.
_UNDERSTOOD = HEURISTIC_STATUS | {302, 303, 307, 400, 401, 403, 409, 422, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class StoringRule:
    """How far the origin's headers are followed.

    `targets` are the targeted fields obeyed, the first usable one before all (RFC 9213). Of the
    time since `Last-Modified`, `heuristic_fraction` counts as fresh where the origin gives no time,
    at most `heuristic_seconds`. With `cookies`, a response that sets one may be kept (section 7.3).
    """

    targets: tuple[str, ...] = ("CDN-Cache-Control",)
    heuristic_fraction: float = 0.0
    heuristic_seconds: float = 86_400.0
    cookies: bool = False


def storing_terms(
    status: int,
    response: Headers,
    *,
    asked_at: float,
    now: float,
    authorized: bool,
    rule: StoringRule,
) -> Terms | None:
    """The terms on which the response may be kept; None when it may not.

    `asked_at` is when its request was sent, `authorized` whether that had an `Authorization`.
    """
    if not _says_anything(response, rule):
        return None
    control = response_control(response, rule.targets)
    if not is_storable(status, response, control, authorized=authorized, cookies=rule.cookies):
        return None
    lifetime = explicit_lifetime(response, control, now)
    if lifetime is None:
        if status not in HEURISTIC_STATUS and not control.public:
            return None
        share = heuristic_lifetime(status, response, control, rule.heuristic_fraction, now)
        lifetime = min(share, rule.heuristic_seconds)
    terms = terms_of(response, control, lifetime, asked_at, now)
    return terms if _is_of_use(terms, response, now) else None


def is_storable(
    status: int, response: Headers, control: CacheControl, *, authorized: bool, cookies: bool
) -> bool:
    """True when nothing forbids that a shared cache keeps it (section 3)."""
    # `must-understand` overrides `no-store` for those who do (section 5.2.2.3).
    understood = status in _UNDERSTOOD
    if control.no_store and not (control.must_understand and understood):
        return False
    if control.private or status in _NEVER_STORED or (control.must_understand and not understood):
        return False
    if not cookies and "Set-Cookie" in response:
        return False
    if authorized and not _is_shared(control):
        return False
    return ANY not in varied_fields(response)


def terms_of(
    response: Headers, control: CacheControl, lifetime: float, asked_at: float, now: float
) -> Terms:
    """The terms of a response that is fresh for `lifetime` seconds from its birth."""
    born = born_at(response, asked_at, now)
    return Terms(
        born_at=born,
        fresh_until=born + lifetime,
        stale_while_seconds=float(control.stale_while_revalidate or 0),
        stale_error_seconds=float(control.stale_if_error or 0),
        validate=control.no_cache,
        # For a shared cache `s-maxage` implies `proxy-revalidate` (section 5.2.2.10).
        strict=control.must_revalidate or control.s_maxage is not None,
        shared=_is_shared(control),
    )


def stored_fields(response: Headers, rule: StoringRule) -> CIMultiDictProxy[str]:
    """The fields that are kept: without those of one answer, and those the upstream withholds."""
    withheld = response_control(response, rule.targets).withheld
    kept = CIMultiDict((name, value) for name, value in response.items() if is_kept(name))
    for name in withheld:
        kept.popall(name, None)
    return CIMultiDictProxy(kept)


def is_kept(name: str) -> bool:
    """True for a field of the resource, not of the one answer."""
    name = name.lower()
    return name not in _UNSTORED and not name.startswith(_UNSTORED_PREFIX)


def _says_anything(response: Headers, rule: StoringRule) -> bool:
    """False for a response that gives neither a lifetime nor a validator: most of an API's."""
    for name in ("Cache-Control", "ETag", "Last-Modified", "Expires", *rule.targets):
        if name in response:
            return True
    return False


def _is_shared(control: CacheControl) -> bool:
    return control.public or control.must_revalidate or control.s_maxage is not None


def _is_of_use(terms: Terms, response: Headers, now: float) -> bool:
    """True when it can be served some time: fresh, stale, or confirmed by the upstream."""
    beyond = max(terms.stale_while_seconds, terms.stale_error_seconds)
    if now < terms.fresh_until + beyond and not terms.validate:
        return True
    return "ETag" in response or "Last-Modified" in response
