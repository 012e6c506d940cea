"""Errors as RFC 9457 documents."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from gateway.core.error import (
    Forbidden,
    GatewayError,
    InvalidRequest,
    QuotaExceeded,
    Unauthorized,
    UpstreamTimeout,
)
from gateway.web.problem import ProblemBoundary, problem
from tests.support.fakes import document, make_request
from tests.support.policy import Terminal


async def test_an_error_is_a_problem_document() -> None:
    error = Forbidden("Not you.", extra={"scope": "admin"}, headers={"X-Why": "scope"})

    response = await ProblemBoundary()(make_request("GET", "/a?b"), Terminal(lambda: error))

    assert response.status == 403
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Why"] == "scope"
    assert document(response) == {
        "type": "urn:problem-type:gateway:forbidden",
        "title": "Not allowed",
        "status": 403,
        "detail": "Not you.",
        "instance": "/a",
        "request_id": "req-1",
        "scope": "admin",
    }


@pytest.mark.parametrize("error", [Unauthorized, QuotaExceeded, UpstreamTimeout, InvalidRequest])
async def test_the_documents_status_is_the_responses(error: type[GatewayError]) -> None:
    response = await ProblemBoundary()(make_request("GET", "/"), Terminal(lambda: error("x")))

    assert document(response)["status"] == response.status == error.status


async def test_the_quotas_type_is_the_registered_one() -> None:
    response = problem(QuotaExceeded("x"))

    assert document(response)["type"] == (
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    )


async def test_an_extension_replaces_no_standard_member() -> None:
    error = Forbidden("x", extra={"status": 200, "type": "y"})

    assert document(problem(error))["status"] == 403
    assert document(problem(error))["type"] == error.type


def test_an_error_without_a_request_names_none() -> None:
    assert document(problem(Forbidden("x"))).keys() == {"type", "title", "status", "detail"}


async def test_an_extension_that_json_lacks_becomes_text() -> None:
    assert document(problem(Forbidden("x", extra={"when": 1j})))["when"] == "1j"


async def test_an_unexpected_error_tells_nothing_and_is_logged() -> None:
    terminal = Terminal(lambda: RuntimeError("the password is 12345"))
    with structlog.testing.capture_logs() as lines:
        response = await ProblemBoundary()(make_request("GET", "/a"), terminal)

    assert response.status == 500
    assert isinstance(response.body, bytes)
    assert b"12345" not in response.body
    assert document(response)["request_id"] == "req-1"
    assert (lines[0]["event"], lines[0]["request_id"]) == ("unhandled_error", "req-1")
    assert lines[0]["exc_info"] is True


async def test_cancellation_passes() -> None:
    with pytest.raises(asyncio.CancelledError):
        await ProblemBoundary()(make_request("GET", "/"), Terminal(asyncio.CancelledError))


async def test_a_refused_target_is_answered_before_anything_further_in() -> None:
    terminal, request = Terminal(), make_request("GET", "/")
    request.refusal = InvalidRequest("ambiguous")

    response = await ProblemBoundary()(request, terminal)

    assert (response.status, terminal.requests) == (400, [])


async def test_the_access_line_learns_the_problem() -> None:
    request = make_request("GET", "/")

    await ProblemBoundary()(request, Terminal(lambda: Forbidden("x")))

    assert request.fields["problem"] == "forbidden"


async def test_an_answer_passes_untouched() -> None:
    assert (await ProblemBoundary()(make_request("GET", "/"), Terminal())).body == b"ok"
