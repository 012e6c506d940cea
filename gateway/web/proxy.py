"""The terminal handler: forwards a request, passes the answer on, and lets jobs be seen in it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from multidict import CIMultiDict, istr

from gateway.core.contract import (
    CANCEL,
    CREATE,
    DETAILS,
    LIST,
    STATUS,
    STREAM,
    Contract,
    Unreadable,
    decode,
)
from gateway.core.error import GatewayError, UpstreamError
from gateway.core.forwarded import forward
from gateway.core.header import strip_hop_by_hop
from gateway.core.job import Observation, State
from gateway.core.message import BodyStream, NoBody, Request, Response
from gateway.core.sse import EventParser
from gateway.core.trace import Kind, Span
from gateway.job.birth import Creation
from gateway.job.callback import Callbacks
from gateway.job.observer import MAX_ANSWER_BYTES, Observer
from gateway.job.tracker import Tracker
from gateway.policy.request_id import REQUEST_ID
from gateway.policy.security_headers import REMOVED
from gateway.telemetry.attribute import of_call, of_upstream
from gateway.telemetry.metric import Metrics, Series
from gateway.telemetry.trace import TRACEPARENT, propagate, state_of
from gateway.upstream.client import Exchange, UpstreamClient
from gateway.web.forward import Forward
from gateway.web.stream import FanOut

_EXPECT, _ACCEPT_ENCODING = istr("Expect"), istr("Accept-Encoding")
_QUOTA = (istr("RateLimit"), istr("RateLimit-Policy"))
_WHOLE_BYTES = 64 * 1024
_JOB_ROUTES = frozenset({CREATE, STATUS, DETAILS, LIST, STREAM, CANCEL})
_ABOUT_ONE_JOB = frozenset({STATUS, DETAILS})


class Proxy:
    """Forwards what no other handler takes."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        client: UpstreamClient,
        upstream_url: str,
        contract: Contract,
        tracker: Tracker,
        observer: Observer,
        callbacks: Callbacks,
        fan_out: FanOut | None = None,
        metrics: Metrics,
        max_body: int,
        now: Callable[[], float],
    ) -> None:
        self._client = client
        self._contract = contract
        self._tracker = tracker
        self._observer = observer
        self._callbacks = callbacks
        self._fan_out = fan_out
        self._metrics = metrics
        self._durations = Series(metrics.upstream_request_duration_seconds)
        self._upstream = of_upstream(upstream_url)
        self._max_body = max_body
        self._now = now

    async def __call__(self, request: Request) -> Response:
        """The upstream's answer. Raises `UpstreamError`, or `ContentTooLarge`."""
        if request.match.name == CREATE:
            return await self._create(request)
        if request.is_upgrade:
            return await self._upgrade(request)
        if request.match.name == STREAM and self._fan_out is not None:
            told = self._fan_out.answer(request, request.match.params["job_id"])
            if told is not None:
                return told
        at = self._now()
        exchange = await self._send(request, self._headers(request))
        if request.match.name == STREAM and exchange.status == 200:
            return _streamed(exchange, self._seen(exchange, request.match.params["job_id"]))
        response = await _passed_on(exchange, whole=request.match.name in _JOB_ROUTES)
        self._observe(request, response, at)
        return response

    async def _create(self, request: Request) -> Response:
        """Forward a creation; it is answered when the job is remembered durably."""
        body = await request.body.read(self._max_body)
        wanted = self._callbacks.extract(request, _lenient(body), self._contract)
        headers = self._headers(request)
        headers.popall("X-Webhook-Url", None)
        with self._tracker.creating():
            at = self._now()
            exchange = await self._send(request, headers)
            response = await _passed_on(exchange, whole=True)
            if not 200 <= response.status < 300 or not isinstance(response.body, bytes):
                return response
            try:
                observation = self._contract.observe(
                    decode(response.body), at, template=request.match.route.template
                )
            except Unreadable as error:
                self._tracker.refuse("create", error.reason, str(error), None)
                return response
            creation = Creation(
                owner=request.owner,
                request_id=request.request_id,
                key=request.lineage,
                traceparent=request.headers.get(TRACEPARENT),
                tracestate=state_of(request.headers) or None,
                webhook_urls=wanted.urls,
                webhook_events=wanted.events,
            )
            await self._tracker.created(observation, creation)
        request.fields["job_id"] = observation.job_id
        return response

    async def _upgrade(self, request: Request) -> Response:
        """Ask for a WebSocket; what follows a 101 is between client and upstream."""
        headers = self._headers(request)
        headers["Connection"], headers["Upgrade"] = "Upgrade", request.headers["Upgrade"]
        exchange = await self._send(request, headers)
        if exchange.status != 101:
            return await _passed_on(exchange, whole=False)
        tunnel = exchange.tunnel()
        answered = _headers(exchange)
        answered["Connection"] = "Upgrade"
        answered["Upgrade"] = exchange.headers.get("Upgrade", "websocket")
        body = BodyStream(NoBody().chunks(), tunnel.close)
        return Response(101, answered, body, exchange.reason, tunnel)

    async def _send(self, request: Request, headers: CIMultiDict[str]) -> Exchange:
        body = None if request.body.is_empty else request.body.chunks()
        name = request.match.name
        streaming = name == STREAM or request.is_upgrade
        since = self._now()
        if (span := request.span) is not None:
            span = span.child(request.method, Kind.CLIENT, since)
            propagate(span.context, headers)
        attempt = self._client.send(
            request.method,
            request.target,
            headers,
            body,
            streaming=streaming,
            interim=partial(_pass_interim, request),
        )
        return await self._timed(request, attempt, since, span)

    async def _timed(
        self,
        request: Request,
        attempt: Awaitable[Exchange],
        since: float,
        span: Span | None = None,
    ) -> Exchange:
        outcome = "error"
        status: int | None = None
        try:
            exchange = await attempt
            status = exchange.status
            outcome = f"{status // 100}xx"
        except UpstreamError as error:
            outcome = error.reason
            raise
        finally:
            at = self._now()
            exemplar = None if span is None else span.exemplar
            self._durations[request.match.name, outcome].observe(max(0.0, at - since), exemplar)
            if span is not None:
                self._end(request, span, status, outcome, at)
        return exchange

    def _end(
        self, request: Request, span: Span, status: int | None, outcome: str, at: float
    ) -> None:
        failed = outcome if status is None else str(status) if status >= 400 else None
        attributes = of_call(request, self._upstream, status, failed)
        span.end(at, attributes, is_error=failed is not None)

    def step(self, request: Request, response: Response) -> Forward | None:  # noqa: ARG002
        """The same request but for its id; None for what is more than a small read, or traced."""
        if request.span is not None:
            return None  # each has a span of its own, which the upstream is told
        name = request.match.name
        if request.method != "GET" or not request.body.is_empty or request.is_upgrade:
            return None
        if name in (CREATE, STREAM) or request.match.route.gateway:
            return None
        headers = self._headers(request)
        headers[REQUEST_ID] = mark = secrets.token_hex(16)
        parts = self._client.request_head("GET", request.target, headers).split(mark.encode())
        if len(parts) != 2:
            return None
        expected = self._client.expected(partial(_pass_interim, request))
        succeeded = self._metrics.duration_tally(self._durations[name, "2xx"])
        is_seen = name in _JOB_ROUTES
        head = (parts[0], parts[1])
        return Forward(self, self._client, request, head, expected, succeeded, is_seen=is_seen)

    # --- a repeated request, as its step has it ----------------------------------------------

    def seen(self, request: Request, status: int, body: bytes, since: float) -> None:
        """Observe an answer of a job's route that came whole."""
        self._observe(request, Response(status, body=body), since)

    async def concluded(
        self, request: Request, attempt: Awaitable[Exchange], since: float
    ) -> Response:
        """Pass on an answer that is not one of those that came before. Raises as calling does."""
        name = request.match.name
        exchange = await self._timed(request, attempt, since)
        response = await _passed_on(exchange, whole=name in _JOB_ROUTES)
        self._observe(request, response, since)
        return response

    def _headers(self, request: Request) -> CIMultiDict[str]:
        headers = strip_hop_by_hop(request.headers)
        headers.popall(_EXPECT, None)  # answered here, when the body is wanted
        if request.match.name in _JOB_ROUTES:
            headers[_ACCEPT_ENCODING] = "identity"  # what is observed must be readable
        forward(headers, peer=request.client, scheme=request.scheme, host=request.host)
        if request.request_id:
            headers[REQUEST_ID] = request.request_id
        return headers

    def _observe(self, request: Request, response: Response, at: float) -> None:
        """Let the tracker see for free what a client asked for."""
        name, job_id = request.match.name, request.match.params.get("job_id")
        if name == CANCEL and job_id and 200 <= response.status < 300:
            self._tracker.offer(Observation(job_id, at, state=State.CANCELLED), "cancel")
        elif name in _ABOUT_ONE_JOB and job_id and response.status == 404:
            self._tracker.offer(Observation(job_id, at, found=False), "client")
        elif name in _ABOUT_ONE_JOB | {LIST} and response.status == 200:
            self._read(request, response, at, job_id)

    def _read(self, request: Request, response: Response, at: float, job_id: str | None) -> None:
        if request.method != "GET" or not isinstance(response.body, bytes):
            return
        template = request.match.route.template
        try:
            document = decode(response.body)
            items = [document] if job_id else self._contract.items(document)
        except Unreadable as error:
            self._tracker.refuse("client", error.reason, str(error), job_id)
            return
        for item in items:
            try:
                seen = self._contract.observe(item, at, template=template, job_id=job_id)
            except Unreadable as error:
                self._tracker.refuse("client", error.reason, str(error), job_id)
            else:
                self._tracker.offer(seen, "client")

    async def _seen(self, exchange: Exchange, job_id: str) -> AsyncGenerator[bytes, None]:
        """The stream's bytes, untouched, while its events are read."""
        parser = EventParser()
        async for chunk in exchange.chunks():
            for event in parser.feed(chunk):
                observation = self._observer.event(event, job_id, "client_stream")
                if observation is not None:
                    self._tracker.offer(observation, "client_stream")
            yield chunk


async def _passed_on(exchange: Exchange, *, whole: bool) -> Response:
    """The answer: read whole where it is to be observed or known to be small, else streamed."""
    length = exchange.headers.get("Content-Length", "")
    limit = MAX_ANSWER_BYTES if whole else _WHOLE_BYTES
    body = exchange.complete  # a small answer mostly arrives with its head
    if body is not None and len(body) <= limit:
        return Response(exchange.status, _headers(exchange), body, exchange.reason)
    small = length.isdecimal() and int(length) <= limit
    if exchange.streams_events or not (small or (whole and not length)):
        return _streamed(exchange, exchange.chunks())
    parts: list[bytes] = []
    size = 0
    chunks = exchange.chunks()
    try:
        async for chunk in chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                return _streamed(exchange, _chained(parts, chunks))
    except GatewayError:
        exchange.close()
        raise
    exchange.close()
    return Response(exchange.status, _headers(exchange), b"".join(parts), exchange.reason)


def _pass_interim(request: Request, status: int, fields: Sequence[tuple[str, str]]) -> None:
    """Tell the client, while it waits, what the upstream says before its answer."""
    if request.interim is not None:
        headers = strip_hop_by_hop(CIMultiDict(fields))
        for name in REMOVED:
            headers.popall(name, None)
        request.interim(status, headers)


def _streamed(exchange: Exchange, chunks: AsyncGenerator[bytes, None]) -> Response:
    body = BodyStream(chunks, exchange.close)
    return Response(exchange.status, _headers(exchange), body, exchange.reason)


def _headers(exchange: Exchange) -> CIMultiDict[str]:
    """The answer's headers; what the upstream says of limits of its own would contradict ours."""
    headers = strip_hop_by_hop(exchange.headers)
    for name in _QUOTA:
        headers.popall(name, None)
    return headers


async def _chained(
    first: list[bytes], rest: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    for chunk in first:
        yield chunk
    async for chunk in rest:
        yield chunk


def _lenient(body: bytes) -> Any:
    """A creation's body as JSON; None when it is none: refusing it is the upstream's business."""
    try:
        return decode(body)
    except Unreadable:
        return None
