"""The gateway's own request and response: what policies and handlers see of HTTP.

`web/adapt.py` converts from and to aiohttp; nothing else knows both.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from multidict import CIMultiDict

from gateway.core.credential import Key, Principal
from gateway.core.error import GatewayError
from gateway.core.route import Match
from gateway.core.trace import Span


class Body(Protocol):
    """A request body, read once."""

    async def read(self, limit: int) -> bytes:
        """The whole body; remembered, so that policies and the proxy can both read it.

        Raises `ContentTooLarge` once more than `limit` bytes have come in.
        """
        ...

    async def peek(self) -> bytes:
        """What comes first, which stays where it is; empty when there is nothing.

        Raises as `read` does.
        """
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece, for forwarding without buffering."""
        ...

    @property
    def is_empty(self) -> bool:
        """True when the request announces no body at all."""
        ...


class NoBody:
    """The body of a request that the gateway makes itself."""

    is_empty = True

    async def read(self, limit: int) -> bytes:  # noqa: ARG002 - the protocol's argument
        """Nothing."""
        return b""

    async def peek(self) -> bytes:
        """Nothing."""
        return b""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Nothing."""
        none: tuple[bytes, ...] = ()
        for chunk in none:
            yield chunk


class WholeBody:
    """A body that is already here, as when a policy has rewritten it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def is_empty(self) -> bool:
        """True when there are no bytes."""
        return not self._content

    async def read(self, limit: int) -> bytes:  # noqa: ARG002 - it has been read, within bounds
        """All of it."""
        return self._content

    async def peek(self) -> bytes:
        """All of it."""
        return self._content

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """All of it, in one piece."""
        yield self._content


# Sends an interim answer (1xx, RFC 9110 section 15.2): its status and fields.
Interim = Callable[[int, CIMultiDict[str]], None]


@dataclass(slots=True)
class Request:
    """One request on its walk through the policies.

    `target` is the normalised raw path and query: what policies match is what is forwarded.
    `client` is the client's address after trusted proxies; `received_at` is wall-clock seconds.
    `principal`, `key` and `scope` are set by the auth policy; `scope` is the one that admitted it.
    `fields` go into the access line. `refusal` is what is wrong with the target: it is answered
    before any policy decides. `is_upgrade` asks for a WebSocket. `interim` passes on what the
    upstream says before its answer; None when nobody waits for it. `span` is its own in its trace;
    None where requests are not traced.
    """

    method: str
    target: str
    path: str
    query: str
    headers: CIMultiDict[str]
    body: Body
    match: Match
    client: str
    scheme: str
    host: str
    received_at: float
    request_id: str = ""
    principal: Principal | None = None
    key: Key | None = None
    scope: str = ""
    refusal: GatewayError | None = None
    is_upgrade: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    interim: Interim | None = None
    span: Span | None = None

    @property
    def owner(self) -> str:
        """Who owns what this request creates; `anonymous` without a key."""
        return self.principal.owner if self.principal else "anonymous"

    @property
    def ids(self) -> dict[str, str]:
        """What ties a log line to this request: its id, and its span's where it has one."""
        ids = {"request_id": self.request_id}
        return ids if self.span is None else ids | self.span.ids

    @property
    def lineage(self) -> str | None:
        """The row of successors that its key is of, as of `Principal`; None without a key."""
        return self.principal.lineage if self.principal else None


class BodyStream:
    """A response body passed on as it comes.

    Whoever sends it must `aclose` it; `closers` then run, once, whether it was read or not. `size`
    counts the bytes that have gone through; `is_complete` says that they were all. Whoever has no
    `chunks` brings its own ways to read and to close.
    """

    __slots__ = ("_chunks", "_closed", "closers", "is_complete", "size")

    def __init__(
        self, chunks: AsyncGenerator[bytes, None] | None, *closers: Callable[[], None]
    ) -> None:
        self._chunks = chunks
        self._closed = False
        self.closers = [*closers]
        self.size = 0
        self.is_complete = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        assert self._chunks is not None
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self.is_complete = True
            raise
        self.size += len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Stop reading and run the closers; harmless when closed already."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._chunks is not None:
                await self._chunks.aclose()
        finally:
            for closer in self.closers:
                closer()


class Tunnel(Protocol):
    """The upstream's end of a connection that speaks another protocol since its 101."""

    async def read(self) -> bytes:
        """The next bytes, empty at the end. Raises `UpstreamError` when it breaks off."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes; followed by `drain`."""
        ...

    async def drain(self) -> None:
        """Until the upstream takes more."""
        ...

    def write_eof(self) -> None:
        """Say that nothing more will be sent."""
        ...

    def close(self) -> None:
        """Close both directions; harmless twice."""
        ...


@dataclass(slots=True)
class Response:
    """One response; `body` is complete bytes, or a stream passed on as it comes.

    A 101 has a `tunnel`, and a body without content whose `aclose` says that the tunnel has ended.
    """

    status: int
    headers: CIMultiDict[str] = field(default_factory=CIMultiDict)
    body: bytes | BodyStream = b""
    reason: str | None = None
    tunnel: Tunnel | None = None


# A coroutine, not any awaitable: the fast lane drives it without a task.
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
