"""Reading one response off the wire (RFC 9112): its head, its body, and where it ends."""

from __future__ import annotations

import httptools

from gateway.core.error import UpstreamMalformed
from gateway.core.header import connection_options
from gateway.upstream.exchange import Exchange
from gateway.upstream.flow import Inflow

# What may come without a byte of body or a whole head: more is a head, a chunk extension or a
# trailer without end.
_IDLE_BYTES = 64 * 1024
_MALFORMED = "The upstream's answer is not valid HTTP"


class ResponseReader:
    """Fills an exchange and its inflow from the bytes of one response.

    `has_head` and `has_ended` say how far it is; `persists` whether the connection may be used
    again after it; `until_close` that its body has no end but the connection's; `is_tunnel` that
    after a 101 the bytes are no longer HTTP.
    """

    def __init__(
        self, exchange: Exchange, inflow: Inflow, *, expects_body: bool, expects_upgrade: bool
    ) -> None:
        self._exchange = exchange
        self._inflow = inflow
        self._expects_body = expects_body
        self._expects_upgrade = expects_upgrade
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
            cause = error.__context__ or error  # httptools wraps what a callback raised
            raise _malformed(str(cause) if isinstance(cause, ValueError) else None) from error
        if self._is_excessive:
            raise _malformed("more came than it announced")
        if self.has_head and self._exchange.status == 101 and not self.is_tunnel:
            raise _malformed("it upgrades without saying to what")
        self._idle_bytes = 0 if self._has_moved else self._idle_bytes + len(data)
        if self._idle_bytes > _IDLE_BYTES and not self.is_tunnel:
            raise _malformed("its head, or a part between the bytes of its body, does not end")

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
        """The head is in; an interim one (RFC 9110 section 15.2) is passed over."""
        if self.has_ended:
            return
        status = self._parser.get_status_code()
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise ValueError("it is of another version of HTTP")
        if status > 599:
            raise ValueError(f"{status} is no status")
        if 100 <= status < 200 and status != 101:
            self._fields, self._reason = [], b""
            return
        if status == 101 and not self._expects_upgrade:
            raise ValueError("it upgrades, which was not asked for")
        exchange = self._exchange
        exchange.headers.extend(self._fields)
        exchange.reason = self._reason.decode("utf-8", "surrogateescape")
        self.until_close = self._check_framing(status, version)
        exchange.status = status
        self.has_head = self._has_moved = True
        if not self._expects_body:
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
        if codings:
            chunked = len(codings) == 1 and codings[0].strip().lower() == "chunked"
            if lengths or not chunked or version == "1.0":
                raise ValueError("its framing is ambiguous")
            return False
        return not lengths and status not in (101, 204, 304)


def _malformed(reason: str | None) -> UpstreamMalformed:
    return UpstreamMalformed(f"{_MALFORMED}: {reason}." if reason else f"{_MALFORMED}.")
