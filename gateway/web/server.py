"""The listeners: aiohttp's server, the chain behind it, and its life from bind to drain."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from gateway.core.message import Handler
from gateway.settings.model import Listener
from gateway.telemetry.log import get_logger
from gateway.web.adapt import UNTYPED, Adapter, respond

_KEEPALIVE_SECONDS = 75.0
_LINE_BYTES = 8 * 1024


class PublicServer:
    """Serves the public listener through a chain of policies.

    `handler` may be replaced at any time: requests under way keep the chain they began with.
    `fallback_headers` go on what aiohttp itself answers to bytes that are not HTTP.
    """

    def __init__(
        self,
        adapter: Adapter,
        handler: Handler,
        fallback_headers: Mapping[str, str],
        drain_timeout: float,
    ) -> None:
        self.handler = handler
        self._adapter = adapter
        self._fallback = fallback_headers
        self._log = get_logger("server")
        self._drain_timeout = drain_timeout
        self._runner: web.ServerRunner | None = None

    async def start(self, listener: Listener) -> int:
        """Listen; the port in use. Raises `OSError` when it is taken."""
        server = web.Server(
            self._serve,
            request_factory=self._incoming,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=self._drain_timeout)
        return await listen(self._runner, listener)

    async def stop(self) -> None:
        """Stop accepting, finish what is under way within the deadline."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, incoming: web.BaseRequest) -> web.StreamResponse:
        request = self._adapter.request(incoming)
        response = await self.handler(request)
        try:
            return await respond(incoming, response)
        except ConnectionError:
            self._log.debug("client_left", request_id=request.request_id)
            raise
        finally:
            # A client that left mid-stream must not keep the upstream's connection open.
            if not isinstance(response.body, bytes):
                await response.body.aclose()

    def _incoming(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        request = _Incoming(message, payload, protocol, writer, task, asyncio.get_running_loop())
        request.fallback_headers = self._fallback
        return request


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
