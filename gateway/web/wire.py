"""A response's head as bytes, and the framing of its body (RFC 9112 sections 4 to 7)."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from multidict import CIMultiDict, istr

from gateway.core.message import Response

_CONTENT_LENGTH, _TRANSFER_ENCODING = istr("Content-Length"), istr("Transfer-Encoding")
_DATE, _CONNECTION = istr("Date"), istr("Connection")
LAST_CHUNK = b"0\r\n\r\n"
_BODILESS = frozenset({204, 304})


class HttpDate:
    """The `Date` of now (RFC 9110 section 5.6.7), made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, now: float) -> str:
        """The date at `now`, epoch seconds."""
        second = int(now)
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


def has_body(method: str, status: int) -> bool:
    """False for an answer that ends with its head (RFC 9112 section 6.3)."""
    return method != "HEAD" and status not in _BODILESS and status >= 200


def is_chunked(method: str, response: Response) -> bool:
    """True for a body whose length is not known beforehand."""
    return (
        not isinstance(response.body, bytes)
        and _CONTENT_LENGTH not in response.headers
        and has_body(method, response.status)
    )


def render_head(method: str, response: Response, date: str, *, close: bool) -> bytes:
    """Status line and fields of an answer to an HTTP/1.1 request, up to its empty line.

    The length of a whole body is set here; answers to HEAD keep the one they announce.
    Raises ValueError for a field that would break out of its line.
    """
    headers, body = response.headers, response.body
    if response.status in _BODILESS or response.status < 200:
        headers.popall(_CONTENT_LENGTH, None)
    elif isinstance(body, bytes):
        if body or (_CONTENT_LENGTH not in headers and has_body(method, response.status)):
            headers[_CONTENT_LENGTH] = str(len(body))
    elif is_chunked(method, response):
        headers[_TRANSFER_ENCODING] = "chunked"
    if _DATE not in headers:
        headers[_DATE] = date
    if close:
        headers[_CONNECTION] = "close"
    text = _field_lines(headers)
    line = _status_line(response.status, response.reason)
    return f"{line}{text}\r\n".encode("utf-8", "surrogateescape")


def render_interim(status: int, headers: CIMultiDict[str]) -> bytes:
    """An interim answer (RFC 9110 section 15.2). Raises ValueError as `render_head` does."""
    text = _field_lines(headers)
    return f"{_status_line(status, None)}{text}\r\n".encode("utf-8", "surrogateescape")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _field_lines(headers: CIMultiDict[str]) -> str:
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise ValueError("a header field of the answer holds a line break")
    return text


@lru_cache(maxsize=256)
def _status_line(status: int, reason: str | None) -> str:
    if reason is None:
        try:
            reason = HTTPStatus(status).phrase
        except ValueError:
            reason = ""
    elif "\r" in reason or "\n" in reason:
        raise ValueError("the reason of the answer holds a line break")
    return f"HTTP/1.1 {status} {reason}\r\n"
