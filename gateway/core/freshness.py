"""How long a stored response may be served, and to whom (RFC 9111)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from multidict import CIMultiDict

_DIRECTIVE = re.compile(
    r"""([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?"""
)
_DELTA = re.compile(r"[0-9]+")
_FORBIDS_STORING = frozenset({"no-store", "private", "no-cache"})
# RFC 9111 section 4.2.4; `s-maxage` asks a shared cache for the same (section 5.2.2.10).
_FORBIDS_STALE = frozenset({"must-revalidate", "proxy-revalidate", "s-maxage", "no-cache"})
_MAX_DELTA_SECONDS = 2**31  # RFC 9111 section 1.2.2: more is taken as this


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as the cache keeps it; times are epoch seconds.

    `headers` are raw name-value pairs in order. `vary` are the request's values of the fields that
    the response varies by. `tags` name what a purge forgets it by. `stored_at` is when the upstream
    made it, as far as is known: its age counts from there.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    stored_at: float
    fresh_until: float
    vary: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """What it costs to keep, give or take the objects' own overhead."""
        names = sum(len(name) + len(value) for name, value in self.headers + self.vary)
        return len(self.body) + names + sum(map(len, self.tags)) + 256

    def is_fresh(self, now: float) -> bool:
        """True while it may be served without asking the upstream."""
        return now < self.fresh_until

    def age_seconds(self, now: float) -> int:
        """The value of `Age` (RFC 9111 section 5.1)."""
        return max(0, int(now - self.stored_at))

    def answers(self, request: CIMultiDict[str]) -> bool:
        """True when the request has the values that this variant was made for (section 4.1)."""
        return all(_combined(request, name) == value for name, value in self.vary)

    def may_be_stale(self) -> bool:
        """True when the upstream did not forbid serving it stale (section 4.2.4)."""
        return not _FORBIDS_STALE & directives(CIMultiDict(self.headers)).keys()


def directives(headers: CIMultiDict[str]) -> Mapping[str, str]:
    """The directives of `Cache-Control`, names lower-cased; one without an argument is empty.

    Of a directive given twice the first counts (RFC 9111 section 4.2.1). Without `Cache-Control`,
    `Pragma: no-cache` means the same directive (section 5.4).
    """
    if "Cache-Control" not in headers:
        pragma = headers.get("Pragma", "").lower()
        return {"no-cache": ""} if "no-cache" in pragma else {}
    found: dict[str, str] = {}
    for match in _DIRECTIVE.finditer(",".join(headers.getall("Cache-Control"))):
        name, quoted, plain = match.groups()
        found.setdefault(name.lower(), quoted if quoted is not None else plain or "")
    return found


def delta_seconds(text: str) -> int | None:
    """Seconds as RFC 9111 section 1.2.2 writes them; None for anything else."""
    return min(int(text), _MAX_DELTA_SECONDS) if _DELTA.fullmatch(text) else None


def may_store(response: CIMultiDict[str]) -> bool:
    """True when a cache that several clients share may keep a response with these headers.

    `private` and `no-cache` are taken for the whole response, with field names or without. A cookie
    is for one client, and nothing is known to answer to `Vary: *` (RFC 9111 sections 3 and 4.1).
    """
    if _FORBIDS_STORING & directives(response).keys() or "Set-Cookie" in response:
        return False
    return "*" not in _varied(response)


def allowed_seconds(response: CIMultiDict[str], now: float) -> float | None:
    """How much longer the upstream allows a response to be fresh; None when it does not say.

    `s-maxage`, `max-age` or `Expires`, in this order (RFC 9111 section 4.2.1), less its age. What
    cannot be read counts as 0.
    """
    said = directives(response)
    age = age_seconds(response)
    for name in ("s-maxage", "max-age"):
        if name in said:
            return float((delta_seconds(said[name]) or 0) - age)
    if "Expires" not in response:
        return None
    expires = _http_date(response["Expires"])
    made = _http_date(response.get("Date", "")) or now
    return 0.0 if expires is None else expires - made - age


def age_seconds(response: CIMultiDict[str]) -> int:
    """The age that caches before this one have noted, 0 without a usable `Age`."""
    return delta_seconds(response.get("Age", "").partition(",")[0].strip()) or 0


def vary_values(
    response: CIMultiDict[str], request: CIMultiDict[str]
) -> tuple[tuple[str, str], ...]:
    """The request's values of the fields that `Vary` names, in the alphabet."""
    return tuple((name, _combined(request, name)) for name in sorted(_varied(response)))


def _varied(response: CIMultiDict[str]) -> set[str]:
    listed = ",".join(response.getall("Vary", ())).split(",")
    return {name for each in listed if (name := each.strip().lower())}


def _combined(headers: CIMultiDict[str], name: str) -> str:
    """All lines of a field as one value; spaces around its commas mean nothing."""
    joined = ",".join(headers.getall(name, ()))
    return ",".join(part.strip() for part in joined.split(","))


def _http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
