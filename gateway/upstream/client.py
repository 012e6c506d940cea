"""The only caller of the job API: pooled connections, every failure told apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from gateway.core.error import (
    ContentTooLarge,
    UpstreamError,
    UpstreamMalformed,
    UpstreamRefused,
    UpstreamReset,
    UpstreamTimeout,
)
from gateway.settings.model import Upstream
from gateway.telemetry.metric import Metrics

# What aiohttp would add of itself: a transparent proxy sends what the client sent.
_NOT_ADDED = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})
_CHUNK_BYTES = 64 * 1024
_FIELD_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response of the upstream."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


class Exchange:
    """One response under way: its head is here, its body comes by `chunks()`.

    Must be closed; a body not read to its end closes the connection, for its framing is unknown.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.reason = response.reason
        self.headers: CIMultiDict[str] = CIMultiDict(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.raw_headers
        )

    @property
    def streams_events(self) -> bool:
        """True for a stream of server-sent events by its type."""
        kind = self.headers.get("Content-Type", "")
        return kind.partition(";")[0].strip().lower() == "text/event-stream"

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives. Raises `UpstreamError` when it breaks off."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translated(error) from error

    async def read(self, limit: int) -> bytes:
        """The whole body; raises `ContentTooLarge` beyond `limit` bytes."""
        parts, size = [], 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                raise ContentTooLarge(f"The upstream's answer exceeds {limit} bytes.")
            parts.append(chunk)
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back if the body was read, else drop it."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class UpstreamClient:
    """Calls one upstream; `open()` before, `close()` after."""

    def __init__(self, settings: Upstream, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._base = settings.url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the pool; connects to nothing, for the upstream may start later."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._settings.max_connections, ttl_dns_cache=10, keepalive_timeout=30
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_NOT_ADDED,
            read_bufsize=_CHUNK_BYTES,
            max_line_size=_FIELD_BYTES,
            max_field_size=_FIELD_BYTES,
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        streaming: bool = False,
    ) -> Exchange:
        """Send a request; the response's head is back when this returns.

        `target` is a raw path and query, sent as it is. `streaming` waits as long as the upstream
        keeps the stream alive (`idle_timeout`) instead of `response_timeout`. Raises
        `UpstreamRefused`, `UpstreamTimeout`, `UpstreamReset` or `UpstreamMalformed`.
        """
        if self._session is None:
            raise RuntimeError("the upstream client is not open")
        settings = self._settings
        silence = settings.idle_timeout if streaming else settings.response_timeout
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=settings.response_timeout,  # a place in a full pool is waited for, too
            sock_connect=settings.connect_timeout,
            sock_read=silence,
        )
        try:
            response = await self._session.request(
                method,
                URL(self._base + target, encoded=True),
                headers=_uniform(headers),
                data=body,
                timeout=timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = _translated(error)
            self._metrics.upstream_errors_total.labels(failure.reason).inc()
            raise failure from error
        return Exchange(response)

    async def fetch(
        self, method: str, target: str, headers: Mapping[str, str], *, limit: int, seconds: float
    ) -> Answer:
        """A whole small answer within `seconds`; raises as `send` does, or `ContentTooLarge`."""
        try:
            async with asyncio.timeout(seconds):
                async with await self.send(method, target, headers) as exchange:
                    body = await exchange.read(limit)
                    return Answer(exchange.status, exchange.headers, body)
        except TimeoutError as error:
            self._metrics.upstream_errors_total.labels(UpstreamTimeout.reason).inc()
            raise UpstreamTimeout(f"The upstream did not answer within {seconds:g} s.") from error


def _uniform(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The same fields, repeated ones spelled as the first: else aiohttp keeps the last alone."""
    spelled: dict[str, str] = {}
    return CIMultiDict(
        (spelled.setdefault(name.lower(), name), value) for name, value in headers.items()
    )


def _translated(error: BaseException) -> UpstreamError:
    """Our name of what went wrong; addresses of the upstream stay out of what clients read."""
    match error:
        case aiohttp.ServerTimeoutError() | TimeoutError():
            return UpstreamTimeout("The upstream did not answer in time; try again.")
        case aiohttp.ClientConnectorError():
            return UpstreamRefused("The upstream cannot be reached; it may still be starting.")
        case aiohttp.ClientResponseError():
            return UpstreamMalformed("The upstream's answer is not valid HTTP.")
        case _:
            return UpstreamReset("The upstream closed the connection before its answer was whole.")
