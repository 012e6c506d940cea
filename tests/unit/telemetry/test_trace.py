"""Spans begin where the client's trace says, or begin one of their own by the ratio."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.core.credential import format_key
from gateway.core.trace import Kind, Span, parse_traceparent
from gateway.telemetry.trace import Tracer
from tests.support.collector import nowhere

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
UNSAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00"


def tracer(ratio: float = 1.0) -> Tracer:
    numbers = iter(range(1, 100))
    return Tracer(ratio, nowhere, bits=lambda _: next(numbers))


def headers(*pairs: tuple[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(pairs)


def test_a_clients_trace_goes_on_in_a_span_of_our_own() -> None:
    sent = headers(("Traceparent", TRACEPARENT), ("tracestate", "a=1"), ("Tracestate", "b=2"))

    span = tracer().receive(sent, "GET /", 5.0)

    assert (span.name, span.kind, span.started_at) == ("GET /", Kind.SERVER, 5.0)
    assert (span.context.trace_id, span.parent_id) == (TRACE_ID, SPAN_ID)
    assert sent.getall("traceparent") == [f"00-{TRACE_ID}-{1:016x}-01"]
    assert sent.getall("tracestate") == ["a=1,b=2"]


@pytest.mark.parametrize(
    "sent",
    [
        headers(),
        headers(("traceparent", "junk")),
        headers(("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)),
    ],
)
def test_what_is_no_context_is_begun_anew_without_its_state(sent: CIMultiDict[str]) -> None:
    sent.add("tracestate", "a=1")

    span = tracer().receive(sent, "GET /", 5.0)

    assert span.parent_id is None
    assert span.context.trace_id != TRACE_ID
    assert sent.getall("traceparent") == [span.context.traceparent]
    assert parse_traceparent(span.context.traceparent) == span.context
    assert "tracestate" not in sent


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize(("given", "sampled"), [(TRACEPARENT, True), (UNSAMPLED, False)])
def test_a_client_has_decided_whatever_the_ratio(
    ratio: float, given: str, *, sampled: bool
) -> None:
    span = tracer(ratio).receive(headers(("traceparent", given)), "GET /", 5.0)

    assert span.is_sampled is sampled


@pytest.mark.parametrize(("ratio", "sampled"), [(0.0, False), (1.0, True)])
def test_the_ratio_decides_for_traces_that_begin_here(ratio: float, *, sampled: bool) -> None:
    assert tracer(ratio).receive(headers(), "GET /", 5.0).is_sampled is sampled
    assert tracer(ratio).resume(None, None, "webhook job.completed", 5.0).is_sampled is sampled


def test_about_the_ratio_of_the_traces_is_sampled() -> None:
    real = Tracer(0.25, nowhere)

    sampled = sum(real.receive(headers(), "GET /", 5.0).is_sampled for _ in range(4000))

    assert 800 < sampled < 1200  # six standard deviations


def test_a_probe_begins_no_trace_but_goes_on_with_one() -> None:
    began = tracer().receive(headers(), "GET /health", 5.0, begins=False)
    went_on = tracer().receive(
        headers(("traceparent", TRACEPARENT)), "GET /health", 5.0, begins=False
    )

    assert not began.is_sampled
    assert went_on.is_sampled


@pytest.mark.parametrize("secret", [format_key(bytes(24)), "whsec_MfKQ9r8GKYqrTwjUPD8I"])
def test_a_state_that_holds_a_credential_goes_nowhere(secret: str) -> None:
    sent = headers(("traceparent", TRACEPARENT), ("tracestate", f"a=1,b={secret}"))

    span = tracer().receive(sent, "GET /", 5.0)

    assert span.context.state == ""
    assert "tracestate" not in sent


def test_a_later_call_is_of_the_trace_of_its_request() -> None:
    span = tracer().resume(TRACEPARENT, "a=1", "webhook job.completed", 7.0)

    assert (span.context.trace_id, span.parent_id) == (TRACE_ID, SPAN_ID)
    assert (span.kind, span.is_sampled, span.context.state) == (Kind.CLIENT, True, "a=1")


def test_what_ends_is_handed_over() -> None:
    ended: list[Span] = []
    span = Tracer(1.0, ended.append).receive(headers(), "GET /", 5.0)

    span.end(6.0, {})

    assert ended == [span]


def test_ids_of_all_zeros_are_never_given() -> None:
    zero = Tracer(1.0, nowhere, bits=lambda _: 0)

    context = zero.receive(headers(), "GET /", 5.0).context

    assert parse_traceparent(context.traceparent) == context
