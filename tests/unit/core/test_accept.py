"""Whether JSON is what a client wants most."""

from __future__ import annotations

import pytest

from gateway.core.accept import takes_json_first


@pytest.mark.parametrize(
    "accept",
    [
        "*/*",
        "application/json",
        "APPLICATION/JSON",
        "application/*",
        "application/json, text/plain, */*",
        "application/json;q=0.8, text/html;q=0.8",
        "text/html;q=0.5, */*",
        "application/json ; q=1.000",
    ],
)
def test_json_answers_it_best(accept: str) -> None:
    assert takes_json_first(accept)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "json",
        "text/html",
        "text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8",
        "application/xml, application/json;q=0.5",
        "application/json;q=0, */*",
        "application/json;q=0",
        "application/json;version=2",
        "application/json;q=2",
        "application/json,",
        "*/*;q=0",
    ],
)
def test_something_else_does_or_it_cannot_be_read(accept: str) -> None:
    assert not takes_json_first(accept)


def test_the_most_specific_range_counts() -> None:
    assert not takes_json_first("application/json;q=0.1, application/*;q=0.9, text/html;q=0.5")
