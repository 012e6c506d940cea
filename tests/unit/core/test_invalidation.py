"""What a change makes unfit to serve."""

from __future__ import annotations

import pytest

from gateway.core.invalidation import invalidated_targets
from gateway.core.message import Response
from tests.support.fakes import make_request
from tests.support.policy import answer

REQUEST = make_request("POST", "/a/b?x=1")  # of https://gateway.example


def named(**headers: str) -> Response:
    return answer(headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(("status", "count"), [(200, 1), (303, 1), (400, 0), (500, 0)])
def test_a_failed_change_changed_nothing(status: int, count: int) -> None:
    assert len(invalidated_targets(REQUEST, answer(status=status))) == count


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/c", "/c"),
        ("c?y=2#part", "/a/c?y=2"),
        ("../c", "/c"),
        ("https://gateway.example/c", "/c"),
        ("HTTPS://Gateway.Example", "/"),
        ("?y=2", "/a/b?y=2"),
    ],
)
def test_what_the_answer_names_is_invalidated_too(reference: str, target: str) -> None:
    assert invalidated_targets(REQUEST, named(Location=reference)) == ("/a/b?x=1", target)
    assert invalidated_targets(REQUEST, named(Content_Location=reference))[1:] == (target,)


@pytest.mark.parametrize(
    "reference",
    [
        "https://other.example/c",
        "http://gateway.example/c",
        "//other.example/c",
        "https://gateway.example:8443/c",
        "https://[",
        "/c/%2e%2e%2fd",
        "mailto:a@b",
    ],
)
def test_another_origin_is_left_alone(reference: str) -> None:
    assert invalidated_targets(REQUEST, named(Location=reference)) == ("/a/b?x=1",)


def test_each_target_comes_once() -> None:
    response = named(Location="/a/b?x=1", Content_Location="/a/b?x=1")

    assert invalidated_targets(REQUEST, response) == ("/a/b?x=1",)
