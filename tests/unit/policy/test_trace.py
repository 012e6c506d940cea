"""Every request has its span, which says what the access line says, and no secret."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from gateway.core.message import Request
from gateway.core.route import Match, Route
from gateway.core.trace import Span
from gateway.policy.access_log import AccessLog
from gateway.policy.trace import Trace
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer
from tests.support.fakes import FakeClock, make_request
from tests.support.policy import Terminal, answer, stream
from tests.support.store import NOW

STATUS = Match(Route("job-status", "/jobs/{job_id}/status"), {"job_id": "j1"})
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture
def ended() -> list[Span]:
    return []


@pytest.fixture
def policy(ended: list[Span], clock: FakeClock) -> Trace:
    return Trace(Tracer(1.0, ended.append), clock)


def get(traceparent: str | None = TRACEPARENT, **changes: Any) -> Request:
    sent = {} if traceparent is None else {"traceparent": traceparent}
    target = "/jobs/j1/status?ticket=secret"
    return make_request("GET", target, **{"match": STATUS, "headers": sent, **changes})


async def test_a_request_is_one_span_with_the_conventions_attributes(
    policy: Trace, ended: list[Span], clock: FakeClock
) -> None:
    request = get()
    request.fields["cache"] = "hit"
    clock.at += 1.5

    await policy(request, Terminal(lambda: answer(b"12345", 200)))

    [span] = ended
    assert (span.name, span.parent_id) == ("GET /jobs/{job_id}/status", SPAN_ID)
    assert (span.started_at, span.ended_at, span.is_error) == (NOW, NOW + 1.5, False)
    assert {name: value for name, value in span.attributes.items() if value is not None} == {
        "http.request.method": "GET",
        "http.route": "/jobs/{job_id}/status",
        "http.response.status_code": 200,
        "http.response.body.size": 5,
        "url.path": "/jobs/j1/status",
        "url.scheme": "https",
        "server.address": "gateway.example",
        "client.address": "192.0.2.7",
        "gateway.cache": "hit",
        "gateway.job_id": "j1",
        "gateway.key_id": "key-of-alice",
        "gateway.request_id": "req-1",
    }


async def test_who_is_called_next_is_told_of_this_span(policy: Trace, ended: list[Span]) -> None:
    terminal = Terminal()
    await policy(get(), terminal)

    assert terminal.headers["traceparent"] == ended[0].context.traceparent
    assert terminal.requests[0].span is ended[0]


async def test_an_unsampled_request_is_passed_on_as_one_and_not_recorded(
    policy: Trace, ended: list[Span]
) -> None:
    terminal = Terminal()
    await policy(get(TRACEPARENT[:-2] + "00"), terminal)

    assert ended == []
    assert terminal.headers["traceparent"].startswith(f"00-{TRACE_ID}-")
    assert terminal.headers["traceparent"].endswith("-00")


@pytest.mark.parametrize(
    ("status", "is_error", "error_type"), [(404, False, None), (502, True, "502")]
)
async def test_only_the_servers_own_failures_are_errors_of_its_span(
    policy: Trace, ended: list[Span], status: int, *, is_error: bool, error_type: str | None
) -> None:
    await policy(get(), Terminal(lambda: answer(status=status)))

    assert ended[0].is_error is is_error
    assert ended[0].attributes["error.type"] == error_type


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("bug"), 500), (asyncio.CancelledError(), 499)]
)
async def test_a_request_without_an_answer_is_a_span_too(
    policy: Trace, ended: list[Span], error: BaseException, status: int
) -> None:
    with pytest.raises(type(error)):
        await policy(get(), Terminal(lambda: error))

    assert ended[0].attributes["http.response.status_code"] == status


async def test_a_stream_is_a_span_until_its_last_byte(
    policy: Trace, ended: list[Span], clock: FakeClock
) -> None:
    response = answer()
    response.body = stream(b"one", b"two")
    await policy(get(), Terminal(lambda: response))
    assert ended == []

    clock.at += 60
    async for _ in response.body:
        pass
    await response.body.aclose()

    assert ended[0].ended_at == NOW + 60
    assert ended[0].attributes["http.response.body.size"] == 6


@pytest.mark.parametrize(
    ("method", "match", "name", "attributes"),
    [
        ("GET", None, "GET", {"http.request.method": "GET"}),
        (
            "BREW",
            STATUS,
            "HTTP /jobs/{job_id}/status",
            {"http.request.method": "_OTHER", "http.request.method_original": "BREW"},
        ),
    ],
)
async def test_names_are_of_a_bounded_set(
    policy: Trace,
    ended: list[Span],
    method: str,
    match: Match | None,
    name: str,
    attributes: dict[str, str],
) -> None:
    await policy(make_request(method, "/jobs/j1/status", match=match), Terminal())

    assert ended[0].name == name
    assert ended[0].attributes.items() >= attributes.items()


async def test_a_probe_begins_no_trace(policy: Trace, ended: list[Span]) -> None:
    health = Match(Route("health", "/health", gateway=True))

    await policy(get(None, match=health), Terminal())
    assert ended == []

    await policy(get(match=health), Terminal())
    assert len(ended) == 1


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [("api.example:8443", "api.example", 8443), ("[::1]:80", "::1", 80), ("[::1]", "::1", None)],
)
async def test_host_and_port_are_told_apart(
    policy: Trace, ended: list[Span], host: str, address: str, port: int | None
) -> None:
    request = get()
    request.host = host

    await policy(request, Terminal())

    assert ended[0].attributes["server.address"] == address
    assert ended[0].attributes["server.port"] == port


async def test_the_access_line_and_the_exemplar_name_the_span(
    policy: Trace, ended: list[Span], metrics: Metrics, clock: FakeClock
) -> None:
    log, terminal = AccessLog(metrics, clock), Terminal()
    with structlog.testing.capture_logs() as lines:
        await policy(get(), lambda request: log(request, terminal))
        await policy(get(TRACEPARENT[:-2] + "00"), lambda request: log(request, terminal))

    assert [line["trace_id"] for line in lines] == [TRACE_ID, TRACE_ID]
    assert lines[0]["span_id"] == ended[0].context.span_id
    exposition = metrics.render("application/openmetrics-text")[1].decode()
    marks = [line for line in exposition.splitlines() if " # {" in line]
    assert len(marks) == 1  # the unsampled one is none, though it came later
    for name, value in ended[0].ids.items():
        assert f'{name}="{value}"' in marks[0].partition(" # ")[2]
    assert marks[0].startswith("gateway_http_request_duration_seconds_bucket{")
    assert " # {" not in metrics.render("")[1].decode()


async def test_ids_for_other_lines_name_the_span_where_there_is_one(
    policy: Trace, ended: list[Span]
) -> None:
    request = get()
    assert request.ids == {"request_id": "req-1"}

    await policy(request, Terminal())

    assert request.ids == {"request_id": "req-1", **ended[0].ids}
