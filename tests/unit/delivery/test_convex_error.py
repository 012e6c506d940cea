"""What an answer of Convex means, and what the operator is told to do about it."""

from __future__ import annotations

import pytest

from gateway.delivery.convex_error import (
    ADDRESS,
    COMPARE,
    DEPLOY,
    DETAIL_CHARACTERS,
    KEY,
    LOOK_UP,
    OVERLOADED,
    SHORTEN,
    ConvexConfigurationError,
    ConvexFunctionError,
    ConvexNotDeployed,
    ConvexUnavailable,
    of_function,
    of_status,
)

HEAD = "[Request ID: 89e1b1c39a27562b] Server Error"


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_says_where_to_set_one(status: int) -> None:
    error = of_status(status, b'{"code":"BadAdminKey","message":"The key is invalid"}', None)
    assert isinstance(error, ConvexConfigurationError)
    assert error.line == f"answered {status}: BadAdminKey: The key is invalid; {KEY}"


@pytest.mark.parametrize("status", [301, 400, 404])
def test_refused_request_doubts_the_address(status: int) -> None:
    error = of_status(status, b"<html>\n nothing here", None)
    assert isinstance(error, ConvexConfigurationError)
    assert error.line == f"answered {status}: <html> nothing here; {ADDRESS}"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_deployment_that_is_away_needs_nothing_but_time(status: int) -> None:
    body = b'{"code":"OptimisticConcurrencyControlFailure","message":"Data changed"}'
    error = of_status(status, body, "7")
    assert isinstance(error, ConvexUnavailable)
    assert (error.remedy, error.retry_after) == ("", "7")
    assert error.line.endswith("OptimisticConcurrencyControlFailure: Data changed")


@pytest.mark.parametrize(
    "message",
    [
        "Could not find public function for 'jobs:x'. Did you forget to run `npx convex dev`?",
        "Trying to execute jobs.js:x as Mutation, but it is defined as Query.",
    ],
)
def test_function_that_is_not_there_is_to_be_deployed(message: str) -> None:
    error = of_function(200, f"{HEAD}\n{message}", None)
    assert isinstance(error, ConvexNotDeployed)
    assert error.remedy == DEPLOY


@pytest.mark.parametrize(
    ("message", "remedy", "certain"),
    [
        ("ArgumentValidationError: Object contains extra field `errorCount`", COMPARE, True),
        ("ReturnsValidationError: Value does not match validator.", COMPARE, True),
        (
            "Failed to insert or update a document because it does not match the schema",
            COMPARE,
            True,
        ),
        ("Uncaught Error: Value is too large (1.20 MiB > maximum size 1 MiB)", SHORTEN, True),
        ("Object has too many fields (1030 > maximum number 1024)", SHORTEN, True),
        ("Function execution timed out (maximum duration: 1s)", OVERLOADED, False),
        ("Uncaught TypeError: x is undefined", "", True),
    ],
)
def test_refusal_says_what_to_do(message: str, remedy: str, certain: bool) -> None:  # noqa: FBT001
    error = of_function(200, f"{HEAD}\n{message}", None)
    assert isinstance(error, ConvexFunctionError)
    assert (error.remedy, error.certain) == (remedy, certain)
    assert message in error.detail


def test_hidden_cause_is_uncertain_and_says_how_to_find_it() -> None:
    error = of_function(200, f"{HEAD}\n", None)
    assert isinstance(error, ConvexFunctionError)
    assert not error.certain
    assert error.line == f"{HEAD}; {LOOK_UP}"


def test_coded_error_is_said_once_with_its_request() -> None:
    data = {"code": "VIDEO_NOT_FOUND", "message": "no video v1"}
    for message in (f"{HEAD}\nUncaught ConvexError: {{...}}", HEAD):
        error = of_function(200, message, data)
        assert isinstance(error, ConvexFunctionError)
        assert error.certain
        assert error.line == "VIDEO_NOT_FOUND: no video v1 [Request ID: 89e1b1c39a27562b]"


def test_detail_is_bounded() -> None:
    assert len(of_function(200, "x" * 10_000, {"y": "z" * 10_000}).detail) == DETAIL_CHARACTERS
