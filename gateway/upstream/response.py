"""Reading one response off the wire (RFC 9112): its head, its body, and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httptools

from gateway.core.error import UpstreamMalformed
from gateway.core.header import connection_options
from gateway.upstream.exchange import Exchange
from gateway.upstream.flow import Inflow

# What may come without a byte of body or a whole head: more is a head, a chunk extension or a
# trailer without end.
_IDLE_BYTES = 64 * 1024
_MALFORMED = "The upstream's answer is not valid HTTP"


# The transfer codings there are (RFC 9112 section 7): what they coded cannot be passed on as it is.
_REGISTERED_CODINGS = frozenset({"chunked", "compress", "deflate", "gzip", "x-compress", "x-gzip"})

# Told of an interim response: its status and fields.
Interim = Callable[[int, Sequence[tuple[str, str]]], None]


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a response before it comes: HEAD has no body, an upgrade was asked for.

    `tolerant` takes what RFC 9112 lets a client take: a body that goes on beyond its announced
    length ends there, one in a coding that nobody registered ends with the connection. `interim` is
    told of interim responses, and must not raise.
    """

    body: bool = True
    upgrade: bool = False
    tolerant: bool = False
    interim: Interim | None = None


class ResponseReader:
    """Fills an exchange and its inflow from the bytes of one response.

    `has_head` and `has_ended` say how far it is; `persists` whether the connection may be used
    again after it; `until_close` that its body has no end but the connection's; `is_tunnel` that
    after a 101 the bytes are no longer HTTP.
    """

    def __init__(self, exchange: Exchange, inflow: Inflow, expected: Expected) -> None:
        self._exchange = exchange
        self._inflow = inflow
        self._expected = expected
        self._parser = httptools.HttpResponseParser(self)
        self._fields: list[tuple[str, str]] = []
        self._reason = b""
        self._idle_bytes = 0
        self._has_moved = False
        self._is_excessive = False
        self.has_head = False
        self.has_ended = False
        self.is_tunnel = False
        self.until_close = False
        self.persists = True

    def feed(self, data: bytes) -> None:
        """Read what came. Raises `UpstreamMalformed`."""
        if not self._idle_bytes and not self.has_head and data[:1] != b"H":
            raise _malformed("it does not begin with HTTP/")
        self._has_moved = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.is_tunnel = True
            if rest := data[upgrade.args[0] :]:
                self._inflow.feed(rest)
        except httptools.HttpParserError as error:
            if self._expected.tolerant and self.has_ended:
                self._is_excessive = True
                self._cut_off()
                return
            cause = error.__context__ or error  # httptools wraps what a callback raised
            raise _malformed(str(cause) if isinstance(cause, ValueError) else None) from error
        if self._is_excessive:
            self._cut_off()
        if self.has_head and self._exchange.status == 101 and not self.is_tunnel:
            raise _malformed("it upgrades without saying to what")
        self._idle_bytes = 0 if self._has_moved else self._idle_bytes + len(data)
        if self._idle_bytes > _IDLE_BYTES and not self.is_tunnel:
            raise _malformed("its head, or a part between the bytes of its body, does not end")

    def _cut_off(self) -> None:
        """What came after the end is no part of the answer (RFC 9112 section 6.3)."""
        if not self._expected.tolerant:
            raise _malformed("more came than it announced")
        self.persists = False

    # --- called by httptools ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A status line begins: ours, an interim one's successor, or one too many."""
        if self.has_ended:
            self._is_excessive = True

    def on_status(self, status: bytes) -> None:
        """A piece of the reason phrase."""
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole field; after the head it is a trailer, and dropped (RFC 9110 section 6.5.1)."""
        if not self.has_head:
            self._fields.append((name.decode("ascii"), value.decode("utf-8", "surrogateescape")))

    def on_headers_complete(self) -> None:
        """The head is in; an interim one (RFC 9110 section 15.2) is told of, but for a 100."""
        if self.has_ended:
            return
        status = self._parser.get_status_code()
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise ValueError("it is of another version of HTTP")
        if status > 599:
            raise ValueError(f"{status} is no status")
        if 100 <= status < 200 and status != 101:
            if self._expected.interim is not None and status != 100:
                self._expected.interim(status, self._fields)
            self._fields, self._reason = [], b""
            return
        if status == 101 and not self._expected.upgrade:
            raise ValueError("it upgrades, which was not asked for")
        exchange = self._exchange
        exchange.headers.extend(self._fields)
        exchange.reason = self._reason.decode("utf-8", "surrogateescape")
        self.until_close = self._check_framing(status, version)
        exchange.status = status
        self.has_head = self._has_moved = True
        if not self._expected.body:
            # The parser, which knows of no HEAD, waits for the body that the head announces.
            options = connection_options(exchange.headers)
            self.has_ended = True
            self.persists = "close" not in options and (version == "1.1" or "keep-alive" in options)

    def on_body(self, body: bytes) -> None:
        """A piece of the body, its chunked coding removed."""
        if self.has_ended:
            self._is_excessive = True
            return
        self._has_moved = True
        self._inflow.feed(body)

    def on_message_complete(self) -> None:
        """The end of a message, interim ones included; after a 101 the bytes are not HTTP."""
        if self.has_head and not self.has_ended and self._exchange.status != 101:
            self.has_ended = True
            self.persists = self._parser.should_keep_alive()

    def _check_framing(self, status: int, version: str) -> bool:
        """True when the body ends with the connection (RFC 9112 section 6.3)."""
        headers = self._exchange.headers
        codings = headers.getall("Transfer-Encoding", ())
        lengths = headers.getall("Content-Length", ())
        if self._expected.tolerant and not lengths and _is_unknown(codings):
            return True
        if codings:
            chunked = len(codings) == 1 and codings[0].strip().lower() == "chunked"
            if lengths or not chunked or version == "1.0":
                raise ValueError("its framing is ambiguous")
            return False
        return not lengths and status not in (101, 204, 304)


def _is_unknown(codings: Sequence[str]) -> bool:
    """True for one coding that nobody registered: it has coded nothing."""
    return len(codings) == 1 and codings[0].strip().lower() not in _REGISTERED_CODINGS


def _malformed(reason: str | None) -> UpstreamMalformed:
    return UpstreamMalformed(f"{_MALFORMED}: {reason}." if reason else f"{_MALFORMED}.")
