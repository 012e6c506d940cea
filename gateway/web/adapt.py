"""Between aiohttp's messages and the gateway's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from gateway.core.error import ContentTooLarge, GatewayError, InvalidRequest, NotFound
from gateway.core.forwarded import TrustedProxies
from gateway.core.message import Request, Response
from gateway.core.route import OTHER, Match, RouteTable, normalize_path
from gateway.settings.contract import GATEWAY_ADMIN

# Set on a request whose answer has no Content-Type: aiohttp would make one up.
UNTYPED = "untyped"


class IncomingBody:
    """A request's body; `limit` bounds what is ever taken, chunked or announced."""

    def __init__(self, request: web.BaseRequest, limit: int) -> None:
        self._request = request
        self._limit = limit
        self._read: bytes | None = None
        self._awaited = request.headers.get("Expect", "").lower() == "100-continue"
        # What ended a streamed body early: the client of the upstream hides it in its own error.
        self.failure: ContentTooLarge | None = None

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

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece, within the bound."""
        if self._read is not None:
            yield self._read
            return
        async for chunk in self._bounded(self._limit):
            yield chunk

    async def _bounded(self, limit: int) -> AsyncIterator[bytes]:
        announced = self._request.content_length
        if announced is not None and announced > limit:
            raise self._too_large(limit)
        if self._awaited:
            self._awaited = False
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._request.writer.output_size = 0  # an interim response is not the response
        size = 0
        async for chunk in self._request.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise self._too_large(limit)
            yield chunk

    def _too_large(self, limit: int) -> ContentTooLarge:
        self.failure = ContentTooLarge(
            f"The request body exceeds {limit} bytes; send less, or ask the operator to raise "
            "server.max_body."
        )
        return self.failure


class Adapter:
    """Makes a `Request` of what aiohttp read."""

    def __init__(
        self,
        routes: RouteTable,
        proxies: TrustedProxies,
        max_body: int,
        now: Callable[[], float],
    ) -> None:
        self._routes = routes
        self._proxies = proxies
        self._max_body = max_body
        self._now = now

    def request(self, incoming: web.BaseRequest) -> Request:
        """The request, its path normalised; one to be refused carries the reason.

        Refused, before any policy looks, are ambiguous targets and the admin listener's paths.
        """
        refusal: GatewayError | None = None
        raw, mark, query = incoming.raw_path.partition("?")
        try:
            path = normalize_path(_origin_form(raw))
        except InvalidRequest as error:
            path, refusal = "/", error
        match = Match(OTHER) if refusal else self._routes.match(incoming.method, path)
        if match.name == GATEWAY_ADMIN:
            refusal = NotFound(f"There is no resource {path}.")
        headers = CIMultiDict(incoming.headers)
        peer = _peer(incoming)
        client, scheme = self._proxies.resolve(peer, incoming.scheme, headers)
        return Request(
            method=incoming.method,
            target=path + mark + query,
            path=path,
            query=query,
            headers=headers,
            body=IncomingBody(incoming, self._max_body),
            match=match,
            client=client,
            scheme=scheme,
            host=headers.get("Host", ""),
            received_at=self._now(),
            refusal=refusal,
        )


async def respond(incoming: web.BaseRequest, response: Response) -> web.StreamResponse:
    """Send a response; a streamed body is sent as it comes, each piece at once."""
    body = response.body
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
        await whole.prepare(incoming)
        await whole.write_eof()
        return whole
    streamed = web.StreamResponse(**parts)
    await streamed.prepare(incoming)
    if not isinstance(body, bytes):
        async for chunk in body:
            await streamed.write(chunk)
    await streamed.write_eof()
    return streamed


def _origin_form(target: str) -> str:
    """The path and query of a request target (RFC 9112 section 3.2)."""
    if target.startswith("/"):
        return target
    scheme, mark, rest = target.partition("://")
    if mark and scheme.lower() in ("http", "https"):
        _, slash, path = rest.partition("/")
        return slash + path if slash else "/"
    raise InvalidRequest("The request target must be a path that starts with '/'.")


def _peer(incoming: web.BaseRequest) -> str:
    transport = incoming.transport
    name = transport.get_extra_info("peername") if transport is not None else None
    return str(name[0]) if isinstance(name, tuple) and name else "unix"
