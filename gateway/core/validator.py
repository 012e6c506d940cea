"""Conditional requests, made and answered, and what a 304 changes (RFC 9110 section 13)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.cache_control import Headers
from gateway.core.http_date import parse_http_date
from gateway.core.storing import is_kept

CONDITIONAL_FIELDS = ("If-None-Match", "If-Modified-Since", "Range", "If-Range")
# RFC 9111 section 3.2 forbids the first; the others describe the stored bytes, not the new ones.
_NOT_UPDATED = frozenset({"content-length", "content-encoding", "content-range"})
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\uffff]*"')
_MADE_HERE = '"gw-'


def made_entity_tag(digest: str) -> str:
    """The entity tag of an answer whose upstream gives none; `digest` stands for its bytes."""
    return f'{_MADE_HERE}{digest}"'


def validating_fields(stored: Headers) -> Sequence[tuple[str, str]]:
    """The fields that ask whether a stored response still holds (RFC 9111 section 4.3.1).

    None when it has no validator of its upstream's.
    """
    fields = []
    tag = stored.get("ETag", "")
    if tag and not tag.startswith(_MADE_HERE):
        fields.append(("If-None-Match", tag))
    if "Last-Modified" in stored:
        fields.append(("If-Modified-Since", stored["Last-Modified"]))
    return fields


def unconditional(request: Headers) -> CIMultiDict[str]:
    """A copy of the fields that asks for the whole response, whatever the client holds."""
    headers = CIMultiDict(request)
    for name in CONDITIONAL_FIELDS:
        headers.popall(name, None)
    return headers


def is_not_modified(request: Headers, response: Headers, now: float) -> bool:
    """True when the client holds this response already: it is to be answered with 304.

    `If-None-Match`, by weak comparison, stands above `If-Modified-Since` (section 13.2.2).
    """
    if "If-None-Match" in request:
        return _matches(",".join(request.getall("If-None-Match")), response.get("ETag"))
    if "If-Modified-Since" not in request or "Last-Modified" not in response:
        return False
    since = parse_http_date(request["If-Modified-Since"], now)
    modified = parse_http_date(response["Last-Modified"], now)
    return since is not None and modified is not None and modified <= since


def allows_range(request: Headers, response: Headers) -> bool:
    """True unless `If-Range` names another response (section 13.1.5): strong comparison."""
    if "If-Range" not in request:
        return True
    wanted = request["If-Range"]
    if wanted.startswith('"'):
        return wanted == response.get("ETag")
    return wanted == response.get("Last-Modified")


def is_about(stored: Headers, not_modified: Headers) -> bool:
    """True when a 304 may be about this stored response (RFC 9111 section 4.3.4).

    A strong entity tag must be the stored one's.
    """
    tag = not_modified.get("ETag", "")
    return not tag.startswith('"') or tag == stored.get("ETag")


def is_same(stored: Headers, head: Headers, length: int) -> bool:
    """True when an answer to HEAD is of the stored response (RFC 9111 section 4.3.5).

    `length` is the stored body's.
    """
    if head.get("Content-Length", str(length)) != str(length):
        return False
    return all(
        head.get(name, stored.get(name)) == stored.get(name) for name in ("ETag", "Last-Modified")
    )


def freshened(stored: Headers, update: Headers) -> CIMultiDictProxy[str]:
    """The stored fields with those of the update in their place (RFC 9111 section 3.2)."""
    headers = CIMultiDict(stored)
    names = {name.lower() for name in update} - _NOT_UPDATED
    for name in names:
        headers.popall(name, None)
    for name, value in update.items():
        if name.lower() in names and is_kept(name):
            headers.add(name, value)
    return CIMultiDictProxy(headers)


def _matches(wanted: str, tag: str | None) -> bool:
    if wanted.strip() == "*":
        return True
    if tag is None:
        return False
    opaque = tag.removeprefix("W/")
    return any(each.removeprefix("W/") == opaque for each in _ENTITY_TAG.findall(wanted))
