"""Begins spans: those of requests, by what their client says, and those of deliveries.

What has ended goes to `record`, which must not wait. Without `tracing.endpoint` there is no
`Tracer`, and nothing here is called.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from multidict import CIMultiDict, istr

from gateway.core.trace import (
    SAMPLED,
    Kind,
    Span,
    TraceContext,
    is_within,
    parse_traceparent,
    parse_tracestate,
)
from gateway.telemetry.log import mask

TRACEPARENT, TRACESTATE = istr("traceparent"), istr("tracestate")


class Tracer:
    """Makes spans; `ratio` is the share of the traces beginning here that are sampled.

    Parent-based: whoever began a trace has decided for it already.
    """

    def __init__(
        self,
        ratio: float,
        record: Callable[[Span], None],
        bits: Callable[[int], int] = random.getrandbits,
    ) -> None:
        self._ratio = ratio
        self._bits = bits
        self.record = record

    def receive(
        self, headers: CIMultiDict[str], name: str, started_at: float, *, begins: bool = True
    ) -> Span:
        """The span of a request with these headers, which are then those for who is called next.

        A context that is malformed or given twice is begun anew (section 4.3). `begins` False
        samples only what the client does.
        """
        given = headers.getall(TRACEPARENT, ())
        parent = parse_traceparent(given[0]) if len(given) == 1 else None
        state = "" if parent is None else state_of(headers)
        span = self._begun(parent, state, name, Kind.SERVER, started_at, begins=begins)
        propagate(span.context, headers)
        return span

    def again(self, span: Span, started_at: float) -> Span:
        """The span of a request with the same headers as that of `span`, which is not a probe."""
        given = span.context
        parent = None if span.parent_id is None else replace(given, span_id=span.parent_id)
        return self._begun(parent, given.state, span.name, span.kind, started_at, begins=True)

    def resume(
        self, traceparent: str | None, state: str | None, name: str, started_at: float
    ) -> Span:
        """The span of a call made later on behalf of the request with this context."""
        parent = None if traceparent is None else parse_traceparent(traceparent)
        return self._begun(parent, state or "", name, Kind.CLIENT, started_at, begins=True)

    def new_span_id(self) -> str:
        """16 hex digits, not all zero."""
        return f"{self._bits(64) or 1:016x}"

    def _begun(
        self,
        parent: TraceContext | None,
        state: str,
        name: str,
        kind: Kind,
        started_at: float,
        *,
        begins: bool,
    ) -> Span:
        own = self.new_span_id()
        if parent is not None:
            context = TraceContext(parent.trace_id, own, parent.flags, state)
            return Span(name, kind, context, parent.span_id, started_at, self)
        trace_id = f"{self._bits(128) or 1:032x}"
        sampled = SAMPLED if begins and is_within(trace_id, self._ratio) else 0
        return Span(name, kind, TraceContext(trace_id, own, sampled), None, started_at, self)


def state_of(headers: CIMultiDict[str]) -> str:
    """The `tracestate` as it may go around; empty when there is none, or none that may."""
    given = headers.getall(TRACESTATE, ())
    state = parse_tracestate(given) if given else ""
    return state if mask(state) == state else ""  # whoever put a credential there


def propagate(context: TraceContext, headers: CIMultiDict[str]) -> None:
    """Make headers say that what they ask for belongs to this span."""
    headers[TRACEPARENT] = context.traceparent
    if context.state:
        headers[TRACESTATE] = context.state
    else:
        headers.popall(TRACESTATE, None)
