"""The access line and the measurements."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from gateway.core.message import Request
from gateway.core.route import Match, Route
from gateway.policy.access_log import AccessLog
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, make_request
from tests.support.policy import SlowTerminal, Terminal, answer, sample, stream

Lines = list[MutableMapping[str, Any]]
LIST = Match(Route("job-list", "/jobs"))
STREAM = Match(Route("job-stream", "/jobs/{job_id}/stream"), {"job_id": "j1"})


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def policy(metrics: Metrics, clock: FakeClock) -> AccessLog:
    return AccessLog(metrics, clock)


def get(match: Match = LIST, target: str = "/jobs?token=x") -> Request:
    return make_request("GET", target, match=match)


async def test_a_request_is_one_line(policy: AccessLog, clock: FakeClock, lines: Lines) -> None:
    request = get()
    request.fields["cache"] = "hit"
    clock.at += 1.5

    await policy(request, Terminal(lambda: answer(b"12345", 201)))

    [line] = lines
    assert line == {
        "event": "request",
        "log_level": "info",
        "cache": "hit",
        "method": "GET",
        "route": "job-list",
        "path": "/jobs",
        "status": 201,
        "duration_seconds": 1.5,
        "bytes": 5,
        "client": "192.0.2.7",
        "key_id": "key-of-alice",
        "request_id": "req-1",
    }


async def test_a_request_without_a_key_names_none(policy: AccessLog, lines: Lines) -> None:
    await policy(make_request("GET", "/", owner=None), Terminal())

    assert lines[0]["key_id"] is None


async def test_a_clock_set_back_makes_no_negative_duration(
    policy: AccessLog, clock: FakeClock, lines: Lines
) -> None:
    clock.at -= 10

    await policy(get(), Terminal())

    assert lines[0]["duration_seconds"] == 0.0


async def test_durations_are_measured_by_route_method_and_status(
    policy: AccessLog, metrics: Metrics, clock: FakeClock
) -> None:
    clock.at += 2

    await policy(get(), Terminal(lambda: answer(status=404)))

    labels = {"route": "job-list", "method": "GET", "status": "404"}
    assert sample(metrics, "http_request_duration_seconds_count", **labels) == 1
    assert sample(metrics, "http_request_duration_seconds_sum", **labels) == 2


async def test_an_invented_method_makes_no_series_of_its_own(
    policy: AccessLog, metrics: Metrics
) -> None:
    await policy(make_request("BREW", "/", match=LIST), Terminal())

    labels = {"route": "job-list", "method": "OTHER", "status": "200"}
    assert sample(metrics, "http_request_duration_seconds_count", **labels) == 1


async def test_a_streams_line_is_written_at_its_end(
    policy: AccessLog, metrics: Metrics, clock: FakeClock, lines: Lines
) -> None:
    response = answer(status=200)
    response.body = body = stream(b"12", b"345")
    await policy(get(STREAM), Terminal(lambda: response))
    assert lines == []

    clock.at += 3
    assert [chunk async for chunk in body] == [b"12", b"345"]
    await body.aclose()

    [line] = lines
    assert (line["bytes"], line["status"], line["duration_seconds"]) == (5, 200, 3)
    assert "aborted" not in line
    assert sample(metrics, "http_stream_duration_seconds_sum", route="job-stream") == 3
    assert sample(metrics, "http_request_duration_seconds_count", route="job-stream") == 0


async def test_a_stream_closed_midway_is_aborted(policy: AccessLog, lines: Lines) -> None:
    response = answer()
    response.body = body = stream(b"12", b"345")
    await policy(get(STREAM), Terminal(lambda: response))

    await anext(body)
    await body.aclose()

    assert (lines[0]["bytes"], lines[0]["aborted"]) == (2, True)


async def test_a_stream_nobody_read_still_has_its_line(
    policy: AccessLog, metrics: Metrics, lines: Lines
) -> None:
    response = answer()
    response.body = body = stream(b"12")
    await policy(get(STREAM), Terminal(lambda: response))

    await body.aclose()

    assert (lines[0]["bytes"], lines[0]["aborted"]) == (0, True)


async def test_a_stream_that_breaks_is_aborted(policy: AccessLog, lines: Lines) -> None:
    response = answer()
    response.body = body = stream(b"12", error=ConnectionError())
    await policy(get(STREAM), Terminal(lambda: response))

    with pytest.raises(ConnectionError):
        [chunk async for chunk in body]
    await body.aclose()

    assert (len(lines), lines[0]["aborted"]) == (1, True)


async def test_a_large_body_is_measured_with_the_requests_not_the_streams(
    policy: AccessLog, metrics: Metrics
) -> None:
    response = answer()
    response.body = body = stream(b"12")
    await policy(get(), Terminal(lambda: response))
    await body.aclose()

    labels = {"route": "job-list", "method": "GET", "status": "200"}
    assert sample(metrics, "http_request_duration_seconds_count", **labels) == 1


async def test_events_are_a_stream_on_any_route(policy: AccessLog, metrics: Metrics) -> None:
    response = answer(headers={"Content-Type": "Text/Event-Stream; charset=utf-8"})
    response.body = body = stream(b"12")
    await policy(get(), Terminal(lambda: response))
    await body.aclose()

    assert sample(metrics, "http_stream_duration_seconds_count", route="job-list") == 1


async def test_a_client_that_leaves_before_the_answer_has_a_line(
    policy: AccessLog, metrics: Metrics, lines: Lines
) -> None:
    terminal = SlowTerminal()
    task = asyncio.create_task(policy(get(), terminal))
    await terminal.arrived()
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert (lines[0]["status"], lines[0]["aborted"]) == (499, True)


async def test_an_error_passes_on_after_its_line(policy: AccessLog, lines: Lines) -> None:
    with pytest.raises(RuntimeError):
        await policy(get(), Terminal(lambda: RuntimeError("x")))

    assert lines[0]["status"] == 500
