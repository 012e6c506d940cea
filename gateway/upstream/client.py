"""The only caller of the job API: pooled connections, every failure told apart.

A request that failed is sent again where that is safe, within a budget; an upstream that keeps
failing is left alone for a while; and no more requests go to it at once than it may get. The
gateway's own questions (`essential`: health checks, the watcher) are apart from all three. They
wait for no place and take none, and no breaker stops them or hears of them: jobs are followed by
them and health is known by them, and they ask other routes than clients do.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass

from multidict import CIMultiDict

from gateway.core.breaker import Breaker, BreakerState, RetryBudget
from gateway.core.error import (
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.settings.upstream import Upstream
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics
from gateway.upstream.address import Address
from gateway.upstream.connection import Connection, Sink, Timeouts
from gateway.upstream.exchange import Exchange, Tunnel
from gateway.upstream.pool import Pool
from gateway.upstream.request import encode_head, send_body
from gateway.upstream.response import Expected, Interim

__all__ = ["Answer", "Connection", "Exchange", "Expected", "Sink", "Tunnel", "UpstreamClient"]

# RFC 9110 section 9.2: these may be sent twice without harm; of the first, twice for no reason.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_IDEMPOTENT = _SAFE | {"PUT", "DELETE"}
_RETRY_SECONDS = (0.025, 0.1)  # the wait before a second try: not all at once
_STALE = "stale"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response of the upstream."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    head: bytes
    body: AsyncIterator[bytes] | None
    length: int | None
    timeouts: Timeouts
    expected: Expected
    streaming: bool = False
    essential: bool = False
    failure: tuple[UpstreamError, bool] | None = None  # of a first try; was it answered at all


class UpstreamClient:
    """Calls one upstream; `open()` before, `close()` after."""

    def __init__(self, settings: Upstream, metrics: Metrics) -> None:
        self._settings = settings
        self._errors = metrics.upstream_errors_total
        self._retries = metrics.upstream_retries_total
        self._state = metrics.upstream_breaker_state
        metrics.upstream_connections.set_function(
            lambda: self._pool.open_count if self._pool else 0
        )
        self._breaker = Breaker(settings.breaker.failures, settings.breaker.open)
        self._budget = RetryBudget(settings.retry.share, settings.retry.per_second)
        total = settings.total_timeout
        self._tolerant = settings.framing == "tolerant"
        self._plain = Timeouts(settings.response_timeout, settings.response_timeout, total)
        self._stream = Timeouts(settings.idle_timeout, settings.idle_timeout, None)
        self._shown = self._breaker.state
        self._is_failing = False
        self._pool: Pool | None = None
        self._senders: set[asyncio.Task[None]] = set()
        self._log = get_logger("upstream")

    async def open(self) -> None:
        """Make the pool; connects to nothing, for the upstream may start later.

        Raises OSError for TLS files that cannot be read.
        """
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        self._address = Address.of(settings)
        self._pool = Pool(
            self._connect,
            size=settings.max_connections,
            max_waiting=settings.max_waiting,
            wait_seconds=settings.queue_timeout,
            keepalive_seconds=settings.keepalive,
            max_streams=settings.max_streams,
        )

    async def close(self) -> None:
        """Close every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        for task in self._senders:
            task.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)

    async def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        streaming: bool = False,
        essential: bool = False,
        interim: Interim | None = None,
    ) -> Exchange:
        """Send a request; the response's head is back when this returns.

        `target` is a raw path and query, sent as it is. `streaming` waits as long as the upstream
        keeps the stream alive (`idle_timeout`), without `response_timeout` and `total_timeout`.
        A body that is not bytes is sent with the announced `Content-Length`, else in chunks. Of a
        request to upgrade, an exchange with status 101 has a `tunnel()`. `interim` is told of what
        the upstream says before its answer (1xx); it must not raise.

        Raises `UpstreamRefused`, `UpstreamTimeout`, `UpstreamReset`, `UpstreamMalformed`,
        `UpstreamUnavailable` or `UpstreamOverloaded`; whatever the body raises; ValueError for
        what cannot be a request.
        """
        if self._pool is None:
            raise RuntimeError("the upstream client is not open")
        head, stream, length = self._encoded(method, target, headers, body)
        request = _Request(
            method,
            head,
            stream,
            length,
            self._stream if streaming else self._plain,
            Expected(method != "HEAD", "Upgrade" in headers, self._tolerant, interim),
            streaming,
            essential,
        )
        if essential:
            return await self._told(self._tried(request, self._pool))
        is_probe = self._admit()
        self._budget.deposit()
        return await self._judged(self._tried(request, self._pool), is_probe=is_probe)

    def at_hand(self) -> Connection | None:
        """A connection for a request to relay; None when `send` must see to it.

        `relay` follows at once.
        """
        if self._pool is None or self._breaker.state is not BreakerState.CLOSED:
            return None
        return self._pool.at_hand()

    def expected(self, interim: Interim) -> Expected:
        """What the answers to a relayed request are read by."""
        return Expected(body=True, upgrade=False, tolerant=self._tolerant, interim=interim)

    def relay(self, connection: Connection, head: bytes, expected: Expected, sink: Sink) -> None:
        """Send a GET without a body, as `request_head` gives it.

        `relayed` is to be called once `sink` has a whole answer, `begun` for an exchange, and
        `resend` when it failed.
        """
        self._budget.deposit()
        connection.relay(head, self._plain, expected, sink)

    def relayed(self) -> None:
        """The upstream has answered a relayed request."""
        self._answered()
        self._breaker.succeeded()

    async def begun(self, connection: Connection, exchange: Exchange) -> Exchange:
        """The exchange of a relayed request, its head in. Raises as `send` does."""
        attempt = self._head_of(exchange, connection, streaming=False)
        return await self._judged(attempt, is_probe=False)

    async def resend(
        self, head: bytes, expected: Expected, error: UpstreamError, *, answered: bool
    ) -> Exchange:
        """Send a relayed request once more where that is safe. Raises as `send` does."""
        if self._pool is None:
            raise error
        request = _Request(
            "GET", head, None, None, self._plain, expected, failure=(error, answered)
        )
        return await self._judged(self._tried(request, self._pool), is_probe=False)

    def request_head(self, method: str, target: str, headers: CIMultiDict[str]) -> bytes:
        """The head of a request without a body, as it is sent. Raises ValueError for none."""
        return self._encoded(method, target, headers, None)[0]

    async def _judged(self, attempt: Awaitable[Exchange], *, is_probe: bool) -> Exchange:
        """The exchange; the breaker hears of it."""
        known = False
        try:
            exchange = await self._told(attempt)
            self._breaker.succeeded()
            known = True
        except UpstreamOverloaded:
            raise
        except UpstreamError:
            self._breaker.failed(self._loop.time())
            known = True
            raise
        finally:
            if is_probe and not known:
                self._breaker.abandoned(self._loop.time())
            self._note_state()
        return exchange

    async def fetch(
        self, method: str, target: str, headers: Mapping[str, str], *, limit: int, seconds: float
    ) -> Answer:
        """A whole small answer within `seconds`, for the gateway itself; raises as `send` does.

        Also `ContentTooLarge`.
        """
        try:
            async with asyncio.timeout(seconds):
                async with await self.send(method, target, headers, essential=True) as exchange:
                    body = await exchange.read(limit)
                    return Answer(exchange.status, exchange.headers, body)
        except TimeoutError as error:
            self._errors.labels(UpstreamTimeout.reason).inc()
            raise UpstreamTimeout(f"The upstream did not answer within {seconds:g} s.") from error

    def _encoded(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> tuple[bytes, AsyncIterator[bytes] | None, int | None]:
        """The head, a body of bytes behind it; else the body, and its length where announced."""
        fields = CIMultiDict(headers)
        whole = b""
        length: int | None = None
        if isinstance(body, bytes):
            fields["Content-Length"] = str(len(body))
            whole, body = body, None
        elif body is not None:
            if "Content-Length" in fields:
                length = int(fields["Content-Length"])
            else:
                fields["Transfer-Encoding"] = "chunked"
        head = encode_head(method, self._address.base + target, fields, self._address.authority)
        return head + whole, body, length

    def _admit(self) -> bool:
        """True when the request is the probe of a half-open breaker. Raises what refuses it."""
        was = self._breaker.state
        if wait := self._breaker.wait(self._loop.time()):
            self._errors.labels(UpstreamUnavailable.reason).inc()
            raise UpstreamUnavailable(
                "The upstream has failed repeatedly and is left alone for a moment; try again.",
                headers={"Retry-After": str(max(1, math.ceil(wait)))},
            )
        return was is not BreakerState.CLOSED

    async def _told(self, attempt: Awaitable[Exchange]) -> Exchange:
        """The exchange; a failure is counted, and the first in a row logged with its cause."""
        try:
            exchange = await attempt
        except UpstreamError as error:
            self._errors.labels(error.reason).inc()
            if not self._is_failing and not isinstance(error, UpstreamOverloaded):
                self._is_failing = True
                self._log.warning(
                    "upstream_failing", reason=error.reason, error=str(error.__cause__ or error)
                )
            raise
        self._answered()
        return exchange

    def _answered(self) -> None:
        if self._is_failing:
            self._is_failing = False
            self._log.info("upstream_answers_again")

    async def _tried(self, request: _Request, pool: Pool) -> Exchange:
        """The exchange of the first try, or of the second where a second is safe."""
        fresh = False
        failure = request.failure
        while True:
            connection: Connection | None = None
            reused = answered = failure is not None
            try:
                if failure is not None:
                    first, answered = failure
                    failure = None
                    raise first
                connection, reused = await pool.acquire(essential=request.essential, fresh=fresh)
                return await self._exchange(request, connection)
            except (UpstreamRefused, UpstreamReset) as error:
                answered = answered or (connection is not None and connection.has_answered)
                why = self._why_again(request, error, answered=answered, reused=reused)
                if why is None or fresh:
                    raise
                self._retries.labels(why).inc()
            fresh = True
            if why != _STALE:
                await asyncio.sleep(random.uniform(*_RETRY_SECONDS))  # noqa: S311 - no secret

    def _why_again(
        self, request: _Request, error: UpstreamError, *, answered: bool, reused: bool
    ) -> str | None:
        """The reason of a second try; None when there may be none.

        An idle connection that the upstream closed just as it was used says nothing of the
        upstream (RFC 9112 section 9.3.1); any other failure is paid for from the budget.
        """
        if answered or request.body is not None or request.method not in _IDEMPOTENT:
            return None
        if reused and isinstance(error, UpstreamReset):
            return _STALE
        if request.method not in _SAFE or request.essential:
            return None
        return error.reason if self._budget.withdraw(self._loop.time()) else None

    async def _exchange(self, request: _Request, connection: Connection) -> Exchange:
        """Send on a connection, and wait for the head; the connection is closed if that fails."""
        exchange = connection.begin(
            request.head, request.timeouts, request.expected, has_body=request.body is not None
        )
        if request.body is not None:
            self._start_body(request, request.body, connection)
        return await self._head_of(exchange, connection, streaming=request.streaming)

    async def _head_of(
        self, exchange: Exchange, connection: Connection, *, streaming: bool
    ) -> Exchange:
        try:
            await exchange.begun()
            if streaming or exchange.status == 101 or exchange.streams_events:
                connection.lasts(self._stream)
                if self._pool is not None:
                    self._pool.uncount(connection)
        except BaseException:  # a caller who leaves, too, must not leave the connection busy
            exchange.close()
            raise
        return exchange

    def _start_body(
        self, request: _Request, body: AsyncIterator[bytes], connection: Connection
    ) -> None:
        """Send the body beside waiting for the answer, which may come before its end."""

        async def send() -> None:
            try:
                await send_body(connection, body, request.length)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it
                connection.fail(error)
            else:
                connection.sent()

        task = asyncio.create_task(send())
        connection.sends(task)
        self._senders.add(task)
        task.add_done_callback(self._senders.discard)

    async def _connect(self) -> Connection:
        made: list[Connection] = []
        pool = self._pool
        assert pool is not None

        def protocol() -> Connection:
            connection = Connection(
                self._loop.time, ended=pool.ended, broke=self._count_break, lost=pool.lost
            )
            made.append(connection)
            return connection

        try:
            await self._address.connect(protocol, self._settings.connect_timeout)
        except BaseException:  # the caller may leave just as the connection is made
            for connection in made:
                connection.abort()
            raise
        return made[-1]

    def _count_break(self, error: Exception) -> None:
        if isinstance(error, UpstreamError):
            self._errors.labels(error.reason).inc()

    def _count(self) -> float:
        return 0 if self._pool is None else self._pool.open_count

    def _note_state(self) -> None:
        state = self._breaker.state
        if state != self._shown:
            self._log.warning("breaker_changed", state=state.name.lower())
            self._state.set(state)
            self._shown = state
