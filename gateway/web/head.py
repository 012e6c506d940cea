"""The head of a request, read strictly: what could be taken in two ways is refused, not guessed at.

Every request of the public listener passes here first, whichever lane serves it, so that its
framing (RFC 9112 sections 2, 3, 5 and 6) is decided once and by the strictest reader of them all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto

from multidict import CIMultiDict

from gateway.core.error import (
    ExpectationFailed,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_FIELDS = 128

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%s) ([\x21-\x7e]+) HTTP/1\.([01])" % _TOKEN)
_FIELD = re.compile(rb"(%s):[ \t]*((?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)[ \t]*" % _TOKEN)
# RFC 3986 section 3.2 without user information: a name or an address, and perhaps a port.
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::\d{0,5})?")
_DIGITS = re.compile(r"[0-9]{1,18}")
_ABSOLUTE = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
# A client that can set these makes one method of another behind the back of every policy.
_OVERRIDES = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
# What the fast lane does not take: CORS, a body, another protocol, fields of this hop alone.
_UNUSUAL = frozenset(
    {"origin", "upgrade", "expect", "connection", "te", "trailer", "keep-alive", "proxy-connection"}
)
_PAGES = frozenset({"origin", "connection"})
_EVENT_STREAM = "text/event-stream"
# What a head is framed, routed and its client told by, whatever the policies look at.
_STRUCTURAL = (
    _UNUSUAL
    | _OVERRIDES
    | {"host", "content-length", "transfer-encoding", "x-real-ip"}
    | {"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
)


class Framing(Enum):
    """How the end of a request's body is known (RFC 9112 section 6.3)."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()


@dataclass(slots=True, eq=False)
class Head:
    """What a request's head says.

    `target` is in origin form, however it was sent; `host` is the authority asked for, without a
    `Host` field's spelling mattering (RFC 9112 section 3.2.2). `error` is what is wrong with it:
    such a request is answered and reaches nobody. `breaks` says that the end of the request is not
    known for certain, so that the connection must end with the answer.
    """

    method: str = "-"
    target: str = "/"
    host: str = ""
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    is_http10: bool = False
    framing: Framing = Framing.NONE
    length: int = 0
    keep_alive: bool = False
    awaits_continue: bool = False
    is_upgrade: bool = False
    is_simple: bool = False
    error: GatewayError | None = None
    breaks: bool = False


def parse_head(raw: bytes, methods: Sequence[str] = METHODS) -> Head:
    """Read a head, from its request line to the empty line that ends it.

    A method that is not among `methods` is refused.
    """
    head = Head()
    try:
        lines = _lines_of(raw)
        _read_line(head, lines[0])
        names = _read_fields(head, lines[1:])
        _check_host(head)
        _read_framing(head)
        _read_connection(head)
    except InvalidRequest as error:
        head.error, head.breaks, head.keep_alive = error, True, False
        return head
    head.error = _refused(head, methods)
    head.is_simple = (
        head.method in ("GET", "HEAD")
        and head.framing is Framing.NONE
        and not head.is_http10
        and head.error is None
        and (_UNUSUAL.isdisjoint(names) or _is_page_streaming(head, names))
    )
    return head


def _is_page_streaming(head: Head, names: set[str]) -> bool:
    """True for a browser's `EventSource`: it says its origin, and what holds without saying.

    There may be many, each for long: the full lane would hold a task for every one.
    """
    headers = head.headers
    return (
        _EVENT_STREAM in headers.get("Accept", "")
        and _UNUSUAL & names <= _PAGES
        and all(each.lower() == "keep-alive" for each in headers.getall("Connection", ()))
    )


class Likeness:
    """Tells heads that are the same but for fields that nobody reads (`read`, lower-cased)."""

    __slots__ = ("_lines", "_read")

    def __init__(self, raw: bytes, read: AbstractSet[str]) -> None:
        self._lines = _lines_of(raw)
        self._read = _STRUCTURAL | read

    def changes(self, raw: bytes) -> list[tuple[bytes, bytes]] | None:
        """The lines that differ, as they were and are; None for a head that is not like the last.

        It must be one whole head, as `parse_head` takes them; its lines stand in the same order,
        and differ in values alone.
        """
        if not raw.endswith(b"\r\n\r\n"):
            return None
        lines = _lines_of(raw)
        if len(lines) != len(self._lines) or lines[0] != self._lines[0]:
            return None
        changed = []
        for known, line in zip(self._lines, lines, strict=True):
            if line != known:
                if not self._is_free(known, line):
                    return None
                changed.append((known, line))
        self._lines = lines
        return changed

    def _is_free(self, known: bytes, line: bytes) -> bool:
        name, colon, _ = line.partition(b":")
        return (
            known.startswith(name + colon)
            and name.decode("latin-1").lower() not in self._read
            and _FIELD.fullmatch(line) is not None
        )


def _lines_of(raw: bytes) -> list[bytes]:
    return raw[:-4].split(b"\r\n")


def _read_line(head: Head, line: bytes) -> None:
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise InvalidRequest(
            "The request line must read METHOD target HTTP/1.1, the target percent-encoded."
        )
    method, target, minor = found.groups()
    head.method = method.decode()
    head.target = target.decode()
    head.is_http10 = minor == b"0"


def _read_fields(head: Head, lines: list[bytes]) -> set[str]:
    """Every field; the names in lower case."""
    if len(lines) > MAX_FIELDS:
        raise InvalidRequest(f"The request has more than {MAX_FIELDS} header fields.")
    names: set[str] = set()
    headers = head.headers
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise InvalidRequest(
                "A header field is malformed: each is `Name: value` on a line of its own that ends "
                "with CR LF, with no space before the colon and no control characters."
            )
        raw_name, raw_value = found.groups()
        name = raw_name.decode()
        lower = name.lower()
        if "_" in name:
            # Servers behind may take `X_Forwarded_For` for `X-Forwarded-For` (CGI does).
            raise InvalidRequest(f"The header name {name} holds an underscore; write it with '-'.")
        if lower not in _OVERRIDES:
            names.add(lower)
            headers.add(name, raw_value.decode("utf-8", "surrogateescape"))
    return names


def _check_host(head: Head) -> None:
    """Exactly one valid `Host` (RFC 9112 section 3.2); of an absolute target its own authority."""
    given = head.headers.getall("Host", ())
    if len(given) > 1 or (not given and not head.is_http10):
        raise InvalidRequest(f"The request must have one Host header; it has {len(given)}.")
    host = given[0] if given else ""
    if not head.target.startswith("/") and (found := _ABSOLUTE.fullmatch(head.target)):
        host, path = found[2], found[3]
        head.target = path if path.startswith("/") else "/" + path
        if not host:
            raise InvalidRequest("The request target names no host.")
        head.headers["Host"] = host
    if "#" in head.target:
        raise InvalidRequest("The request target must not hold a fragment ('#').")
    if host and not _AUTHORITY.fullmatch(host):
        raise InvalidRequest("The Host header is no host name or address, with or without a port.")
    head.host = host


def _read_framing(head: Head) -> None:
    """How the body ends (RFC 9112 section 6); whatever could smuggle a request is refused."""
    headers = head.headers
    lengths = headers.getall("Content-Length", ())
    codings = headers.getall("Transfer-Encoding", ())
    if codings:
        if lengths or head.is_http10:
            raise InvalidRequest("Transfer-Encoding does not go with Content-Length or HTTP/1.0.")
        if len(codings) > 1 or codings[0].lower() != "chunked":
            raise InvalidRequest("The one Transfer-Encoding understood is `chunked`, named once.")
        head.framing = Framing.CHUNKED
    elif lengths:
        if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
            raise InvalidRequest("Content-Length must be one number, in digits alone.")
        head.length = int(lengths[0])
        head.framing = Framing.LENGTH if head.length else Framing.NONE


def _read_connection(head: Head) -> None:
    headers = head.headers
    options = [
        each.strip().lower() for each in ",".join(headers.getall("Connection", ())).split(",")
    ]
    persistent = "keep-alive" in options if head.is_http10 else True
    head.keep_alive = persistent and "close" not in options
    head.is_upgrade = (
        "upgrade" in options
        and headers.get("Upgrade", "").lower() == "websocket"
        and head.method == "GET"
        and head.framing is Framing.NONE
        and not head.is_http10
    )


def _refused(head: Head, methods: Sequence[str]) -> GatewayError | None:
    """What is understood, and not done."""
    if head.method not in methods:
        allowed = ", ".join(methods)
        return MethodNotAllowed(
            f"The gateway passes {allowed}, not {head.method}.", headers={"Allow": allowed}
        )
    if not head.target.startswith("/") and not (head.target == "*" and head.method == "OPTIONS"):
        return InvalidRequest("The request target must be a path that starts with '/'.")
    if "Expect" in head.headers:
        if head.headers.getall("Expect") != ["100-continue"]:
            return ExpectationFailed("The one Expect understood is `100-continue`.")
        head.awaits_continue = head.framing is not Framing.NONE and not head.is_http10
    return None
