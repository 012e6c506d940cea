"""Gives every request its span in a trace; part of the chain only where `tracing` is on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.message import BodyStream, Handler, Request, Response
from gateway.core.trace import Span
from gateway.policy.access_log import CLIENT_GONE
from gateway.policy.step import Step
from gateway.settings.contract import HEALTH, METRICS
from gateway.telemetry.attribute import of_request, span_name
from gateway.telemetry.trace import Tracer

_PROBES = frozenset({HEALTH, METRICS})  # asked all the time: no trace begins with them


class Trace:
    """Sets `request.span` and the trace context that is forwarded.

    The span ends with the last byte of the answer, as the access line is written then.
    """

    def __init__(self, tracer: Tracer, now: Callable[[], float]) -> None:
        self._tracer = tracer
        self._now = now

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The answer as it came."""
        begins = request.match.name not in _PROBES
        span = request.span = self._tracer.receive(
            request.headers, span_name(request), request.received_at, begins=begins
        )
        try:
            response = await call_next(request)
        except BaseException as error:  # whatever it is passes on, but not without its span
            gone = isinstance(error, asyncio.CancelledError)
            self._end(request, span, CLIENT_GONE if gone else 500, 0)
            raise
        if not span.is_sampled:
            return response
        body = response.body
        if isinstance(body, bytes):
            self._end(request, span, response.status, len(body))
        else:
            body.closers.append(lambda: self._end_stream(request, span, response.status, body))
        return response

    def step(self, request: Request, response: Response) -> Step:  # noqa: ARG002 - the protocol's
        """A span of its own each time: of the client's trace again, or of one begun anew."""
        return _Again(self._tracer, request, self._end)

    def _end_stream(self, request: Request, span: Span, status: int, body: BodyStream) -> None:
        self._end(request, span, status, body.size)

    def _end(self, request: Request, span: Span, status: int, size: int) -> None:
        if span.is_sampled:
            attributes = of_request(request, status, size)
            span.end(self._now(), attributes, is_error=status >= 500)


class _Again(Step):
    __slots__ = ("_end", "_request", "_span", "_tracer")

    def __init__(
        self, tracer: Tracer, request: Request, end: Callable[[Request, Span, int, int], None]
    ) -> None:
        assert request.span is not None
        self._tracer = tracer
        self._request = request
        self._span = request.span
        self._end = end

    def enter(self, at: float) -> None:
        self._span = self._request.span = self._tracer.again(self._span, at)

    def done(self, at: float, status: int, size: int) -> None:  # noqa: ARG002 - read anew
        self._end(self._request, self._span, status, size)
