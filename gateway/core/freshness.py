"""How old a response is, how long it is fresh, and on what terms it may be reused (RFC 9111)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from multidict import CIMultiDictProxy

from gateway.core.cache_control import CacheControl, Headers, delta_seconds
from gateway.core.http_date import parse_http_date
from gateway.core.vary import Values

# RFC 9110 section 15.1: these may be given a heuristic freshness.
HEURISTIC_STATUS = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a response may be reused, fixed when it came in; times are epoch seconds.

    `born_at` is when its age was 0. `stale_while_seconds` and `stale_error_seconds` are what the
    upstream allows beyond `fresh_until`: while it is asked anew, and when it fails (RFC 5861).
    `validate`: never without asking (`no-cache`). `strict`: never stale (`must-revalidate`,
    `proxy-revalidate`, `s-maxage`). `shared`: although the request had an `Authorization`, and for
    such requests (section 3.5).
    """

    born_at: float
    fresh_until: float
    stale_while_seconds: float = 0.0
    stale_error_seconds: float = 0.0
    validate: bool = False
    strict: bool = False
    shared: bool = False

    def is_fresh(self, now: float) -> bool:
        """True while it may be served without asking the upstream (section 4.2)."""
        return now < self.fresh_until and not self.validate

    def may_be_stale(self, now: float, seconds: float) -> bool:
        """True when it may be served `seconds` beyond its freshness (section 4.2.4)."""
        return not self.strict and not self.validate and now <= self.fresh_until + seconds

    def expired(self, now: float) -> Terms:
        """The same, but not fresh from `now` on."""
        return replace(self, fresh_until=min(self.fresh_until, now))


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as the cache keeps it: end-to-end headers, the whole body, terms, variant."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    terms: Terms
    vary: Values = ()

    def age_seconds(self, now: float) -> int:
        """The value of `Age` (section 5.1)."""
        return max(0, int(now - self.terms.born_at))


def age_seconds(response: Headers) -> int:
    """The age that caches before this one have noted, 0 without a usable `Age`.

    Of several values the first counts (section 5.1).
    """
    if "Age" not in response:
        return 0
    return delta_seconds(response["Age"].partition(",")[0].strip()) or 0


def born_at(response: Headers, asked_at: float, now: float) -> float:
    """When the age was 0: `now` less the corrected initial age (section 4.2.3).

    `asked_at` is when the request was sent. Ages and `Date` have whole seconds, so does the result
    when the upstream's clock is behind.
    """
    date = parse_http_date(response["Date"], now) if "Date" in response else None
    # Within a second `Date` says nothing: it was cut off.
    apparent_age = 0.0 if date is None or now - date < 1.0 else now - date
    return now - max(apparent_age, age_seconds(response) + (now - asked_at))


def explicit_lifetime(response: Headers, control: CacheControl, now: float) -> float | None:
    """The freshness the upstream gives, in seconds; None when it gives none (section 4.2.1).

    `s-maxage`, `max-age` or `Expires`, in this order; an `Expires` that cannot be read, or is there
    twice, is past (section 5.3).
    """
    if control.s_maxage is not None:
        return float(control.s_maxage)
    if control.max_age is not None:
        return float(control.max_age)
    if control.is_targeted or "Expires" not in response:
        return None
    expires = response.getall("Expires")
    until = parse_http_date(expires[0], now) if len(set(expires)) == 1 else None
    made = parse_http_date(response.get("Date", ""), now)
    return 0.0 if until is None else until - (now if made is None else made)


def heuristic_lifetime(
    status: int, response: Headers, control: CacheControl, fraction: float, now: float
) -> float:
    """A share of the time the response has not changed for; 0 where none fits (section 4.2.2)."""
    if not fraction or "Last-Modified" not in response:
        return 0.0
    if status not in HEURISTIC_STATUS and not control.public:
        return 0.0
    modified = parse_http_date(response["Last-Modified"], now)
    made = parse_http_date(response.get("Date", ""), now)
    return 0.0 if modified is None else max(0.0, fraction * ((made or now) - modified))
