"""A public server in this process, and clients that speak to it byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.core.forwarded import TrustedProxies
from gateway.core.host import HostRule
from gateway.core.message import Handler
from gateway.core.route import Route, RouteTable
from gateway.policy.chain import Chain
from gateway.policy.request_id import RequestId
from gateway.policy.security_headers import SecurityHeaders
from gateway.settings.policy_browser import SecurityHeaderPolicy
from gateway.settings.server import Listener, Server
from gateway.telemetry.metric import Metrics
from gateway.web.adapt import Adapter
from gateway.web.problem import ProblemBoundary
from gateway.web.server import PublicServer

WAIT_SECONDS = 10.0
ROUTES = (Route("job-status", "/jobs/{job_id}", frozenset({"GET"})),)


@dataclass(slots=True)
class Running:
    """A server and where it is."""

    server: PublicServer
    port: int
    metrics: Metrics = field(default_factory=Metrics)


@asynccontextmanager
async def running(
    terminal: Handler, *, fast: bool = True, now: Any = None, **settings: Any
) -> AsyncIterator[Running]:
    """A server whose chain is what every answer passes, ending at `terminal`."""
    metrics = Metrics()
    loopback = Listener(host="127.0.0.1", port=0)
    values = Server(**{"public": loopback, "drain_timeout": 1.0, "drain_delay": 0.0, **settings})
    headers = SecurityHeaders(SecurityHeaderPolicy(), metrics)
    chain = (RequestId("test-"), headers, ProblemBoundary())
    server = PublicServer(
        values,
        adapter=Adapter(
            RouteTable(ROUTES),
            TrustedProxies(values.trusted_proxies),
            HostRule(values.hosts),
            values.max_body,
        ),
        chain=Chain(chain, terminal),
        fallback_headers=headers.headers,
        metrics=metrics,
        fast=fast,
        **({} if now is None else {"now": now}),
    )
    try:
        port = await server.start()
        yield Running(server, port, metrics)
    finally:
        await server.stop()


@dataclass(slots=True)
class Reply:
    """One answer as it came over the wire."""

    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for each, value in self.fields if each.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The one value of a field; None when it is not there."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


class Wire:
    """A client's connection, which sends what it is told, and reads answers strictly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send these, each in a packet of its own as far as a client can say."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def reply(self, method: str = "GET") -> Reply:
        """The next answer."""
        async with asyncio.timeout(WAIT_SECONDS):
            reply, length = parse_reply_head(await self.reader.readuntil(b"\r\n\r\n"))
            if method == "HEAD" or reply.status in (204, 304) or reply.status < 200:
                return reply
            reply.body = await self._body(length)
            return reply

    async def rest(self) -> bytes:
        """All up to the end of the connection, which must come."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.read()

    async def ended(self) -> bool:
        """True when nothing comes but the end, a reset counting as one."""
        try:
            return await self.rest() == b""
        except ConnectionError:
            return True

    async def _body(self, length: int | None) -> bytes:
        if length is not None:
            return await self.reader.readexactly(length)
        parts: list[bytes] = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            parts.append(await self.reader.readexactly(size))
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return b"".join(parts)


def parse_reply_head(raw: bytes) -> tuple[Reply, int | None]:
    """An answer without its body, and the body's length; None when it is chunked."""
    line, *lines = raw.decode("utf-8", "surrogateescape").removesuffix("\r\n\r\n").split("\r\n")
    version, status, reason = line.split(" ", 2)
    assert version == "HTTP/1.1"
    fields = [(name, value) for name, _, value in (each.partition(": ") for each in lines)]
    reply = Reply(int(status), reason, fields, b"")
    if reply.get("Transfer-Encoding") == "chunked":
        assert reply.get("Content-Length") is None
        return reply, None
    return reply, int(reply.get("Content-Length") or 0)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Wire]:
    """A client's connection to a port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


async def ask(port: int, raw: bytes, method: str = "GET") -> Reply:
    """One request on a connection of its own."""
    async with connected(port) as wire:
        await wire.send(raw)
        return await wire.reply(method)


def get(target: str = "/a", *lines: str, method: str = "GET", host: str = "api.example") -> bytes:
    """A request without a body."""
    fields: Sequence[str] = [f"Host: {host}", *lines]
    return "".join(
        [f"{method} {target} HTTP/1.1\r\n", *(f"{f}\r\n" for f in fields), "\r\n"]
    ).encode()
