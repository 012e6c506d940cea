"""Request ids and trace context."""

from __future__ import annotations

import re

import pytest

from gateway.core.credential import format_key
from gateway.policy.request_id import RequestId
from tests.support.fakes import make_request
from tests.support.policy import Terminal, answer

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("given", ["abcdefgh", "A.b_c-0123", "x" * 128])
async def test_a_well_formed_id_is_kept(given: str) -> None:
    request, terminal = make_request("GET", "/", headers={"x-request-id": given}), Terminal()

    response = await RequestId("p-")(request, terminal)

    assert request.request_id == given
    assert terminal.headers.getall("X-Request-ID") == [given]
    assert response.headers["X-Request-ID"] == given


@pytest.mark.parametrize(
    "given",
    ["", "short12", "x" * 129, "has space", "a\tbcdefgh", "ünïcödés", format_key(bytes(24))],
)
async def test_a_malformed_id_is_replaced(given: str) -> None:
    request, terminal = make_request("GET", "/", headers={"X-Request-ID": given}), Terminal()

    response = await RequestId("prefix-")(request, terminal)

    assert request.request_id == "prefix-000001"
    assert terminal.headers.getall("X-Request-ID") == ["prefix-000001"]
    assert response.headers["X-Request-ID"] == "prefix-000001"


async def test_two_ids_are_none() -> None:
    twice = [("X-Request-ID", "abcdefgh"), ("x-request-id", "abcdefgh")]
    request = make_request("GET", "/", headers=twice)

    await RequestId("prefix-")(request, Terminal())

    assert request.headers.getall("X-Request-ID") == ["prefix-000001"]


async def test_every_request_without_an_id_gets_its_own_well_formed_one() -> None:
    policy, ids = RequestId("0123456789ab-"), []
    for _ in range(3):
        request = make_request("GET", "/")
        await policy(request, Terminal())
        ids.append(request.request_id)

    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{8,128}", each) for each in ids)


async def test_the_upstreams_id_is_replaced_on_the_answer() -> None:
    terminal = Terminal(lambda: answer(headers={"X-Request-Id": "theirs-1"}))

    response = await RequestId("prefix-")(make_request("GET", "/"), terminal)

    assert response.headers.getall("X-Request-ID") == ["prefix-000001"]


async def test_a_valid_trace_context_passes() -> None:
    terminal = Terminal()
    headers = {"traceparent": TRACE, "tracestate": "a=b"}

    await RequestId("p-")(make_request("GET", "/", headers=headers), terminal)

    assert terminal.headers["traceparent"] == TRACE
    assert terminal.headers["tracestate"] == "a=b"


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", "junk"), ("tracestate", "a=b")],
        [("traceparent", TRACE), ("traceparent", TRACE), ("tracestate", "a=b")],
        [("tracestate", "a=b")],
    ],
)
async def test_a_broken_trace_context_is_dropped_whole(headers: list[tuple[str, str]]) -> None:
    terminal = Terminal()

    await RequestId("p-")(make_request("GET", "/", headers=headers), terminal)

    assert "traceparent" not in terminal.headers
    assert "tracestate" not in terminal.headers
