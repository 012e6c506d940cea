"""Answers made of stored responses: whole, in part, headers alone, or "you have it already"."""

from __future__ import annotations

from multidict import CIMultiDict, istr

from gateway.core.byte_range import byte_range
from gateway.core.freshness import StoredResponse
from gateway.core.message import Request, Response
from gateway.core.validator import allows_range, is_not_modified

AGE, CACHE_STATUS = istr("Age"), istr("Cache-Status")
# RFC 9110 section 15.4.5: a 304 carries what guides caches, not what describes a body it has not.
_OF_THE_BODY = (
    *("Content-Length", "Content-Type", "Content-Encoding", "Content-Language"),
    *("Content-Range", "Content-MD5"),
)


def hit_status(entry: StoredResponse, now: float) -> str:
    """`Cache-Status` of a fresh stored response (RFC 9211 section 2)."""
    return f"gateway; hit; ttl={int(entry.terms.fresh_until - now)}"


def served(request: Request, entry: StoredResponse, now: float, how: str) -> Response:
    """The stored response as this request may have it, saying how in `Cache-Status` (RFC 9211)."""
    headers = entry.headers.copy()
    headers[AGE] = str(entry.age_seconds(now))
    headers[CACHE_STATUS] = how
    return conditioned(request, Response(entry.status, headers, entry.body), now)


def conditioned(request: Request, response: Response, now: float) -> Response:
    """The answer as the request's conditions, range and method want it (RFC 9110 section 13.2).

    A body that is a stream is left alone: its upstream was asked with the same conditions.
    """
    wanted, body = request.headers, response.body
    if not isinstance(body, bytes):
        return response
    if 200 <= response.status < 300 and is_not_modified(wanted, response.headers, now):
        for name in _OF_THE_BODY:
            response.headers.popall(name, None)
        return Response(304, response.headers)
    if request.method == "HEAD":
        if response.status != 204:
            response.headers["Content-Length"] = str(len(body))
        response.body = b""
    elif "Range" in wanted and response.status == 200:
        return _in_part(wanted, response, body)
    return response


def _in_part(wanted: CIMultiDict[str], whole: Response, body: bytes) -> Response:
    part = byte_range(wanted["Range"], len(body))
    if part is None or not allows_range(wanted, whole.headers):
        return whole
    headers = whole.headers
    headers["Content-Range"] = part.content_range(len(body))
    if not part.is_satisfiable:
        headers.popall("Content-Type", None)
        headers["Content-Length"] = "0"
        return Response(416, headers)
    headers["Content-Length"] = str(part.end - part.start)
    return Response(206, headers, body[part.start : part.end])
