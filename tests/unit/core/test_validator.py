"""Conditional requests, made and answered."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.core.http_date import format_http_date
from gateway.core.validator import (
    allows_range,
    freshened,
    is_about,
    is_not_modified,
    is_same,
    made_entity_tag,
    unconditional,
    validating_fields,
)

NOW = 1_700_000_000.0
OLD, NEW = format_http_date(NOW - 100), format_http_date(NOW - 50)


def fields(**values: str) -> CIMultiDict[str]:
    return CIMultiDict((name.replace("_", "-"), value) for name, value in values.items())


def test_both_validators_are_sent() -> None:
    stored = fields(ETag='W/"a"', Last_Modified=OLD)

    assert list(validating_fields(stored)) == [
        ("If-None-Match", 'W/"a"'),
        ("If-Modified-Since", OLD),
    ]
    assert not validating_fields(fields())


def test_a_tag_made_here_means_nothing_to_the_upstream() -> None:
    assert not validating_fields(fields(ETag=made_entity_tag("00")))


def test_the_whole_is_asked_for_without_conditions() -> None:
    request = fields(
        If_None_Match="x", Range="bytes=0-1", If_Range="x", If_Modified_Since="x", A="1"
    )

    assert unconditional(request) == fields(A="1")
    assert "Range" in request


@pytest.mark.parametrize(
    ("request_fields", "same"),
    [
        ({"If_None_Match": '"a"'}, True),
        ({"If_None_Match": 'W/"a"'}, True),
        ({"If_None_Match": '"b", "a"'}, True),
        ({"If_None_Match": "*"}, True),
        ({"If_None_Match": '"b"'}, False),
        ({"If_None_Match": "a"}, False),
        ({"If_None_Match": '"x,"a"'}, False),
        ({"If_None_Match": '"a"', "If_Modified_Since": format_http_date(0)}, True),
        ({"If_None_Match": '"b"', "If_Modified_Since": NEW}, False),
        ({"If_Modified_Since": NEW}, True),
        ({"If_Modified_Since": OLD}, True),
        ({"If_Modified_Since": format_http_date(NOW - 101)}, False),
        ({"If_Modified_Since": "yesterday"}, False),
        ({}, False),
    ],
)
def test_a_client_that_has_it_is_told_so(request_fields: dict[str, str], *, same: bool) -> None:
    response = fields(ETag='"a"', Last_Modified=OLD)

    assert is_not_modified(fields(**request_fields), response, NOW) == same


def test_nothing_is_known_of_a_response_without_validators() -> None:
    assert not is_not_modified(fields(If_None_Match='"a"'), fields(), NOW)
    assert not is_not_modified(fields(If_Modified_Since=NEW), fields(), NOW)


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [('"a"', True), ('"b"', False), ('W/"a"', False), (OLD, True), (NEW, False)],
)
def test_if_range_compares_strongly(wanted: str, *, allowed: bool) -> None:
    assert allows_range(fields(If_Range=wanted), fields(ETag='"a"', Last_Modified=OLD)) == allowed


def test_without_if_range_any_part_will_do() -> None:
    assert allows_range(fields(), fields())


@pytest.mark.parametrize(
    ("confirmation", "about"),
    [({}, True), ({"ETag": '"a"'}, True), ({"ETag": 'W/"x"'}, True), ({"ETag": '"x"'}, False)],
)
def test_a_304_with_another_strong_tag_is_of_another_response(
    confirmation: dict[str, str], *, about: bool
) -> None:
    assert is_about(fields(ETag='"a"'), fields(**confirmation)) == about


@pytest.mark.parametrize(
    ("head", "same"),
    [
        ({}, True),
        ({"Content_Length": "3", "ETag": '"a"'}, True),
        ({"Content_Length": "4"}, False),
        ({"ETag": '"b"'}, False),
        ({"Last_Modified": NEW}, False),
    ],
)
def test_an_answer_to_head_is_of_the_stored_one_or_not(head: dict[str, str], *, same: bool) -> None:
    assert is_same(fields(ETag='"a"'), fields(**head), 3) == same


def test_a_304_updates_all_but_what_describes_the_bytes() -> None:
    stored = CIMultiDict(
        [("A", "1"), ("A", "2"), ("B", "1"), ("Content-Length", "3"), ("Content-Encoding", "br")]
    )
    update = CIMultiDict(
        [("a", "9"), ("C", "1"), ("Content-Length", "0"), ("Content-Encoding", "x"), ("Age", "7")]
    )

    assert freshened(stored, update) == CIMultiDict(
        [("B", "1"), ("Content-Length", "3"), ("Content-Encoding", "br"), ("a", "9"), ("C", "1")]
    )
