"""The public listener: connections on two lanes, the chain behind them, from bind to drain."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from gateway.core.contract import STREAM
from gateway.core.message import Request, Response
from gateway.policy.chain import Chain
from gateway.settings.contract import EVENTS
from gateway.settings.server import Listener, Server
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics
from gateway.web.adapt import UNTYPED, Adapter, Arrival, IncomingBody, respond
from gateway.web.certificate import Certificate
from gateway.web.event_stream import EventStreams
from gateway.web.head import MAX_FIELDS, METHODS, Head
from gateway.web.lane import Connection
from gateway.web.listening import Client, Terms
from gateway.web.protocol import ClientProtocol, FullLane
from gateway.web.wire import HttpDate

EVENT_ROUTES = frozenset({STREAM, EVENTS})  # events whatever type their answers have
_DRAIN_LOOK_SECONDS = 0.05
_BACKLOG = 1024
_ABORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Inherited:
    """Listening sockets that a process was handed: the public ones, and that of a path."""

    public: Sequence[socket.socket]
    unix: socket.socket | None = None


class PublicServer:
    """Serves the public listener through a chain of policies.

    `chain` may be replaced at any time: requests under way keep the chain they began with.
    `fallback_headers` go on what aiohttp itself answers. `fast` False sends all down the full lane.
    Each of `ending` is called once when a drain ends what lasts.
    """

    def __init__(
        self,
        settings: Server,
        *,
        adapter: Adapter,
        chain: Chain,
        fallback_headers: Mapping[str, str],
        metrics: Metrics,
        now: Callable[[], float] = time.time,
        fast: bool = True,
    ) -> None:
        self.chain = chain
        self.terms = Terms(
            max_header=settings.max_header,
            header_timeout=settings.header_timeout,
            body_timeout=settings.body_timeout,
            keepalive_timeout=settings.keepalive_timeout,
            write_timeout=settings.write_timeout,
            methods=(*METHODS, *settings.further_methods),
            fast=fast,
        )
        self.is_draining = False
        self.now = now
        self._settings = settings
        self._following: asyncio.Task[None] | None = None
        self._max_connections = settings.max_connections
        self._drain_timeout = settings.drain_timeout
        self._drain_delay = min(settings.drain_delay, settings.drain_timeout / 2)
        self._draining: asyncio.Task[None] | None = None
        self._adapter = adapter
        self._fallback = fallback_headers
        self.date = HttpDate()
        self._streams = EventStreams()
        self.ending: list[Callable[[], None]] = []
        self._connections: set[Client] = set()
        self._open = metrics.active_connections
        self._turned_away = metrics.connections_refused_total
        self._log = get_logger("server")
        self._web: web.Server | None = None
        self._context: ssl.SSLContext | None = None
        self._listening: list[asyncio.AbstractServer] = []

    async def start(self, inherited: Inherited | None = None) -> int:
        """Listen; the port in use. Raises `OSError` when it is taken, or for unusable TLS files.

        A worker listens on the sockets that it has `inherited`, and binds none.
        """
        settings, loop = self._settings, asyncio.get_running_loop()
        self._web = web.Server(self._serve, request_factory=self._incoming)
        context = self._context
        if settings.tls is not None:
            certificate = Certificate(settings.tls)
            context = self._context = certificate.context
            self._following = asyncio.create_task(certificate.follow())
        if inherited is not None:
            return await self._start_on(inherited)
        listening = await loop.create_server(
            self._connection,
            settings.public.host,
            settings.public.port,
            ssl=context,
            backlog=_BACKLOG,
            reuse_port=settings.reuse_port or None,
        )
        self._listening.append(listening)
        if settings.socket is not None:
            self._listening.append(
                await loop.create_unix_server(self._connection, settings.socket, backlog=_BACKLOG)
            )
        return int(listening.sockets[0].getsockname()[1])

    async def listen_on(self, sockets: Sequence[socket.socket]) -> Sequence[asyncio.AbstractServer]:
        """Accept from these too, which stay open when what is returned is closed."""
        loop = asyncio.get_running_loop()
        found = [
            await loop.create_server(
                self._connection, sock=each.dup(), ssl=self._context, backlog=_BACKLOG
            )
            for each in sockets
        ]
        self._listening += found
        return found

    async def _start_on(self, inherited: Inherited) -> int:
        await self.listen_on(inherited.public)
        if inherited.unix is not None:
            # The path is the parent's: it stays when this worker ends.
            kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
            loop = asyncio.get_running_loop()
            self._listening.append(
                await loop.create_unix_server(
                    self._connection, sock=inherited.unix.dup(), backlog=_BACKLOG, **kept
                )
            )
        return int(inherited.public[0].getsockname()[1])

    def drain(self, *, at_once: bool = False) -> None:
        """Begin to send clients away: answers end their connections from now on.

        After `drain_delay`, in which those who balance the load take notice, or `at_once`, nobody
        is accepted any more, streams of events end with a hint to reconnect and WebSockets with
        status 1001.
        """
        if self._draining is None:
            self.is_draining = True
            self._draining = asyncio.create_task(self._drain(0.0 if at_once else self._drain_delay))

    async def stop(self) -> None:
        """Drain, for no longer than the deadline, then close what is left."""
        if self._following is not None:
            self._following.cancel()
        if not self._listening:  # it never came to that
            return
        self.drain()
        assert self._draining is not None
        _, late = await asyncio.wait({self._draining}, timeout=self._drain_timeout)
        if late:
            self._log.warning("drain_timed_out", connections=len(self._connections))
            for client in list(self._connections):
                client.abort()
            await asyncio.wait({self._draining}, timeout=_ABORT_SECONDS)
        if self._web is not None:
            await self._web.shutdown(_ABORT_SECONDS)

    async def _drain(self, delay_seconds: float) -> None:
        """Until the last client has left."""
        await asyncio.sleep(delay_seconds)
        for listening in self._listening:
            listening.close()
        self._streams.end()
        for end in self.ending:
            end()
        while self._connections:
            for client in list(self._connections):
                client.leave()
                client.end_if_idle()
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)

    def _connection(self) -> Connection:
        return Connection(self, asyncio.get_running_loop())

    # --- as its connections see it -----------------------------------------------------------

    def judge(self, head: Head, peer: str, scheme: str) -> Arrival:
        """What a head asks for."""
        return self._adapter.judge(head, peer, scheme)

    def adopt(self, request: Request, response: Response) -> Response:
        """The answer as it is to be sent: a stream of events ends when the server does."""
        return self._streams.adopt(response, is_events=request.match.name in EVENT_ROUTES)

    def full_lane(self, client: ClientProtocol) -> FullLane:
        """Aiohttp's side of a connection."""
        assert self._web is not None
        return FullLane(
            self._web,
            client,
            asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            max_line_size=self.terms.max_header,
            max_field_size=self.terms.max_header,
            max_headers=MAX_FIELDS,
        )

    def joined(self, client: Client) -> bool:
        """Count a client; False when there are too many."""
        if len(self._connections) >= self._max_connections:
            self._turned_away.inc()
            return False
        self._connections.add(client)
        self._open.inc()
        return True

    def left(self, client: Client) -> None:
        """A client is gone."""
        if client in self._connections:
            self._connections.discard(client)
            self._open.dec()

    # --- the full lane -------------------------------------------------------------------------

    async def _serve(self, incoming: web.BaseRequest) -> web.StreamResponse:
        connection = _connection(incoming.protocol)
        request = connection.arrival.request(
            IncomingBody(incoming, self._adapter.max_body), self.now()
        )
        if not connection.arrival.head.is_http10:
            request.interim = connection.pass_interim
        if request.method in ("GET", "HEAD"):  # a read ends with its client, as on the fast lane
            connection.streams(asyncio.current_task())
        response = await self.chain.handle(request)
        request.interim = None
        response = self.adopt(request, response)
        if not isinstance(response.body, bytes):
            connection.streams(asyncio.current_task())
        try:
            sent = await respond(incoming, response, self.date(self.now()), close=connection.closes)
        except ConnectionError:
            self._log.debug("client_left", **request.ids)
            raise
        finally:
            # A client that left mid-stream must not keep the upstream's connection open.
            if not isinstance(response.body, bytes):
                await response.body.aclose()
        connection.answered(closes=not sent.keep_alive)
        return sent

    def _incoming(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        _connection(protocol).begin_body(payload)
        request = _Incoming(message, payload, protocol, writer, task, asyncio.get_running_loop())
        request.fallback_headers = self._fallback
        return request


def _connection(protocol: RequestHandler) -> Connection:
    assert isinstance(protocol, FullLane)
    assert isinstance(protocol.client, Connection)
    return protocol.client


class _Incoming(web.BaseRequest):
    """A request whose every answer, aiohttp's own included, leaves without a `Server` field."""

    ATTRS = web.BaseRequest.ATTRS | frozenset({"fallback_headers"})
    fallback_headers: Mapping[str, str]

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.popall("Server", None)
        if self.get(UNTYPED):
            response.headers.popall("Content-Type", None)
        for name, value in self.fallback_headers.items():
            response.headers.setdefault(name, value)


async def listen(runner: web.BaseRunner, listener: Listener) -> int:
    """Bind a listener; the port in use (port 0 takes a free one). Raises `OSError`."""
    await runner.setup()
    site = web.TCPSite(runner, listener.host, listener.port)
    await site.start()
    address = runner.addresses[0]
    return int(address[1])
