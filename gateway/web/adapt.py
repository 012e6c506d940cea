"""From what came over the wire to the gateway's own request, and from its response to aiohttp's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from gateway.core.error import (
    ContentTooLarge,
    GatewayError,
    InvalidRequest,
    MisdirectedRequest,
    NotFound,
)
from gateway.core.forwarded import TrustedProxies
from gateway.core.host import HostRule
from gateway.core.message import Body, Request, Response
from gateway.core.route import OTHER, Match, RouteTable, normalize_path
from gateway.settings.contract import GATEWAY_ADMIN
from gateway.web.head import Head

# Set on a request whose answer has no Content-Type: aiohttp would make one up.
UNTYPED = web.RequestKey("untyped", bool)


class IncomingBody:
    """A request's body; `limit` bounds what is ever taken, chunked or announced."""

    def __init__(self, request: web.BaseRequest, limit: int) -> None:
        self._request = request
        self._limit = limit
        self._read: bytes | None = None
        self._peeked = b""
        self._awaited = request.headers.get("Expect", "").lower() == "100-continue"

    @property
    def is_empty(self) -> bool:
        """True when the request announces no body."""
        return self._read == b"" or not self._request.body_exists

    @property
    def length(self) -> int | None:
        """The announced length in bytes; None when chunked."""
        return self._request.content_length

    async def read(self, limit: int) -> bytes:
        """The whole body, remembered; raises `ContentTooLarge` beyond `limit` bytes."""
        if self._read is None:
            parts = [chunk async for chunk in self._bounded(min(limit, self._limit))]
            self._read = b"".join(parts)
        return self._read

    async def peek(self) -> bytes:
        """What comes first, as much as is here; it is still to be read. Raises as `read` does."""
        if self._read is not None:
            return self._read
        if not self._peeked:
            await self._invite(self._limit)
            self._peeked = await self._request.content.readany()
        return self._peeked

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece, within the bound."""
        if self._read is not None:
            yield self._read
            return
        async for chunk in self._bounded(self._limit):
            yield chunk

    async def _bounded(self, limit: int) -> AsyncIterator[bytes]:
        await self._invite(limit)
        size = 0
        async for chunk in self._pieces():
            size += len(chunk)
            if size > limit:
                raise too_large(limit)
            yield chunk

    async def _pieces(self) -> AsyncIterator[bytes]:
        if self._peeked:
            yield self._peeked
        # The lane ends it with a `GatewayError` where it is too slow or badly framed.
        async for chunk in self._request.content.iter_any():
            yield chunk

    async def _invite(self, limit: int) -> None:
        """Ask for the body if its client waits for that. Raises for one announced as too large."""
        announced = self._request.content_length
        if announced is not None and announced > limit:
            raise too_large(limit)
        if self._awaited:
            self._awaited = False
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.writer.output_size = 0  # an interim response is not the response


@dataclass(slots=True, eq=False)
class Arrival:
    """A head, judged: all of a request that depends on its head and its connection alone.

    Clients that poll send the same bytes again and again: what was judged once is kept for the
    connection, and each request is made of it anew.
    """

    head: Head
    target: str
    path: str
    query: str
    match: Match
    client: str
    scheme: str
    refusal: GatewayError | None

    def request(self, body: Body, received_at: float) -> Request:
        """One request with this head; its headers are its own to change."""
        head = self.head
        return Request(
            head.method,
            self.target,
            self.path,
            self.query,
            CIMultiDict(head.headers),
            body,
            self.match,
            self.client,
            self.scheme,
            head.host,
            received_at,
            refusal=self.refusal,
            is_upgrade=head.is_upgrade,
        )


class Adapter:
    """Judges what a head asks for, before any policy looks."""

    def __init__(
        self, routes: RouteTable, proxies: TrustedProxies, hosts: HostRule, max_body: int
    ) -> None:
        self.max_body = max_body
        self._routes = routes
        self._proxies = proxies
        self._hosts = hosts

    def judge(self, head: Head, peer: str, scheme: str) -> Arrival:
        """The path normalised, the route and the client found; what is refused carries the reason.

        Refused are malformed heads, foreign hosts, ambiguous targets, the admin listener's paths,
        and bodies announced as too large.
        """
        refusal = head.error
        raw, mark, query = head.target.partition("?")
        path = "/"
        if refusal is None:
            try:
                path = raw if raw == "*" else normalize_path(raw)
            except InvalidRequest as error:
                refusal = error
        match = Match(OTHER) if refusal else self._routes.match(head.method, path)
        client, scheme = self._proxies.resolve(peer, scheme, head.headers)
        return Arrival(
            head=head,
            target=path + mark + query,
            path=path,
            query=query,
            match=match,
            client=client,
            scheme=scheme,
            refusal=refusal or self._refused(head, match, path),
        )

    def _refused(self, head: Head, match: Match, path: str) -> GatewayError | None:
        if not self._hosts.allows(head.host):
            return MisdirectedRequest(
                "The gateway does not answer for this host; server.hosts lists those it does."
            )
        if match.name == GATEWAY_ADMIN:
            return NotFound(f"There is no resource {path}.")
        if head.length > self.max_body:
            return too_large(self.max_body)
        return None


def too_large(limit: int) -> ContentTooLarge:
    """A body exceeds `limit` bytes."""
    return ContentTooLarge(
        f"The request body exceeds {limit} bytes; send less, or ask the operator to raise "
        "server.max_body."
    )


async def respond(
    incoming: web.BaseRequest, response: Response, date: str, *, close: bool
) -> web.StreamResponse:
    """Send a response; a streamed body is sent as it comes, each piece at once.

    `date` is now's; `close` ends the connection with it.
    """
    body = response.body
    response.headers.setdefault("Date", date)
    if "Content-Type" not in response.headers:
        incoming[UNTYPED] = True
    parts: dict[str, Any] = {
        "status": response.status,
        "reason": response.reason,
        "headers": response.headers,
    }
    # Answers to HEAD, and 304, announce the length of a body that does not follow.
    if isinstance(body, bytes) and (body or "Content-Length" not in response.headers):
        whole = web.Response(body=body, **parts)
        if close:
            whole.force_close()
        await whole.prepare(incoming)
        await whole.write_eof()
        return whole
    streamed = web.StreamResponse(**parts)
    if close:
        streamed.force_close()
    await streamed.prepare(incoming)
    if not isinstance(body, bytes):
        async for chunk in body:
            await streamed.write(chunk)
    await streamed.write_eof()
    return streamed
