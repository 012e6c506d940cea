"""What a message says of caches: `Cache-Control` (RFC 9111) and its targeted kin (RFC 9213)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from multidict import CIMultiDict, CIMultiDictProxy

Headers = CIMultiDict[str] | CIMultiDictProxy[str]

_MAX_DELTA_SECONDS = 2**31  # RFC 9111 section 1.2.2: more is taken as this
_REMEMBERED_TEXTS = 256  # distinct field values whose reading is kept: peers repeat the same few
_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_MEMBER = re.compile(rf'(?:[^,"]|{_QUOTED})+')
_DIRECTIVE = re.compile(
    rf"\s*(?P<name>{_WORD})(?:=(?:(?P<quoted>{_QUOTED})|(?P<plain>{_WORD})))?\s*"
)
_NAMED = re.compile(rf"\s*({_WORD})")
_DELTA = re.compile(r"[0-9]+")

# RFC 9651 section 3.2, as far as RFC 9213 needs it: keys, bare items, parameters, inner lists.
_KEY = r"[a-z*][a-z0-9_.*-]*"
_BARE = (
    r'(?:-?[0-9]{1,12}\.[0-9]{1,3}|-?[0-9]{1,15}|"(?:[ !#-\[\]-~]|\\["\\])*"'
    r"|:[A-Za-z0-9+/=]*:|\?[01]|[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*)"
)
_PARAMETERS = rf"(?:; *{_KEY}(?:={_BARE})?)*"
_ITEM = rf"{_BARE}{_PARAMETERS}"
_INNER_LIST = rf"\( *(?:{_ITEM}(?: +{_ITEM})*)? *\){_PARAMETERS}"
_ENTRY = re.compile(rf"({_KEY})(?:=(?:({_BARE}){_PARAMETERS}|{_INNER_LIST})|{_PARAMETERS})")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_INTEGER = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The directives of a request or a response (RFC 9111 section 5.2); times are seconds.

    A freshness that cannot be read is 0: what is unclear is stale. `withheld` are the fields,
    lower-cased, that `no-cache` and `private` list: the rest of the response may be reused.
    `max_stale` without an argument is infinite. `is_targeted` when it came by a field for caches
    like this one, which stands above `Cache-Control` and `Expires` (RFC 9213 section 2.2).
    """

    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    public: bool = False
    must_revalidate: bool = False
    must_understand: bool = False
    only_if_cached: bool = False
    max_age: int | None = None
    s_maxage: int | None = None
    min_fresh: int | None = None
    max_stale: float | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    withheld: frozenset[str] = frozenset()
    is_targeted: bool = False


NOTHING_SAID = CacheControl()
_PRAGMA = CacheControl(no_cache=True)


def request_control(headers: Headers) -> CacheControl:
    """What a client asks of caches; without `Cache-Control`, `Pragma: no-cache` (section 5.4)."""
    if "Cache-Control" in headers:
        return _read(", ".join(headers.getall("Cache-Control")))
    if "Pragma" in headers and "no-cache" in headers["Pragma"].lower():
        return _PRAGMA
    return NOTHING_SAID


def response_control(headers: Headers, targets: Sequence[str] = ()) -> CacheControl:
    """What an upstream tells caches: the first of `targets` that is usable, else `Cache-Control`.

    A targeted field that is empty or malformed is passed over whole (RFC 9213 section 2.1).
    """
    for name in targets:
        if name in headers:
            said = _read_targeted(", ".join(headers.getall(name)))
            if said is not None:
                return said
    if "Cache-Control" in headers:
        return _read(", ".join(headers.getall("Cache-Control")))
    return NOTHING_SAID


def delta_seconds(text: str) -> int | None:
    """Seconds as RFC 9111 section 1.2.2 writes them; None for anything else."""
    return min(int(text), _MAX_DELTA_SECONDS) if _DELTA.fullmatch(text) else None


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def _read(text: str) -> CacheControl:
    return _understood(_directives(text))


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def _read_targeted(text: str) -> CacheControl | None:
    found = _dictionary(text)
    if not found:
        return None
    # A value of the wrong type is no value: only Integers are times, only true is a flag.
    usable = {
        name: "" if value == "?1" else value
        for name, value in found.items()
        if value == "?1" or _INTEGER.fullmatch(value)
    }
    return _understood(usable, is_targeted=True)


def _directives(text: str) -> Mapping[str, str | None]:
    """By name, lower-cased; "" without an argument, None where the member is malformed.

    Of a directive given twice the first counts (RFC 9111 section 4.2.1).
    """
    found: dict[str, str | None] = {}
    for member in _MEMBER.findall(text):
        if whole := _DIRECTIVE.fullmatch(member):
            argument = whole["quoted"][1:-1] if whole["quoted"] else whole["plain"] or ""
            found.setdefault(whole["name"].lower(), argument)
        elif named := _NAMED.match(member):
            found.setdefault(named[1].lower(), None)
    return found


def _understood(said: Mapping[str, str | None], *, is_targeted: bool = False) -> CacheControl:
    max_stale = said.get("max-stale")
    return CacheControl(
        no_store="no-store" in said,
        no_cache="no-cache" in said and not said["no-cache"],
        private="private" in said and not said["private"],
        public="public" in said,
        must_revalidate="must-revalidate" in said or "proxy-revalidate" in said,
        must_understand="must-understand" in said,
        only_if_cached="only-if-cached" in said,
        max_age=_bound(said, "max-age"),
        s_maxage=_bound(said, "s-maxage"),
        min_fresh=_grant(said, "min-fresh"),
        max_stale=math.inf if max_stale == "" else _grant(said, "max-stale"),
        stale_while_revalidate=_grant(said, "stale-while-revalidate"),
        stale_if_error=_grant(said, "stale-if-error"),
        withheld=_fields(said.get("no-cache")) | _fields(said.get("private")),
        is_targeted=is_targeted,
    )


def _bound(said: Mapping[str, str | None], name: str) -> int | None:
    """A time that ends reuse: unreadable, it ends at once."""
    return (delta_seconds(said[name] or "") or 0) if name in said else None


def _grant(said: Mapping[str, str | None], name: str) -> int | None:
    """A time that extends reuse: unreadable, it grants nothing."""
    return delta_seconds(said.get(name) or "")


def _fields(argument: str | None) -> frozenset[str]:
    return frozenset(name for each in (argument or "").split(",") if (name := each.strip().lower()))


def _dictionary(text: str) -> Mapping[str, str] | None:
    """A Dictionary's bare values as they are written, "?1" for a key alone; None when malformed.

    Of a key given twice the last counts (RFC 9651 section 4.2.2). An inner list is `()`.
    """
    text = text.strip(" ")
    found: dict[str, str] = {}
    at = 0
    while entry := _ENTRY.match(text, at):
        key, bare = entry.groups()
        alone = entry.end() == entry.end(1) or text[entry.end(1)] == ";"
        found[key] = bare if bare is not None else "?1" if alone else "()"
        if entry.end() == len(text):
            return found
        comma = _COMMA.match(text, entry.end())
        if comma is None:
            return None
        at = comma.end()
    return None
