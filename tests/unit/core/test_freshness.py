"""How old a response is, and how long it is fresh."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.cache_control import response_control
from gateway.core.freshness import (
    StoredResponse,
    Terms,
    age_seconds,
    born_at,
    explicit_lifetime,
    heuristic_lifetime,
)
from gateway.core.http_date import format_http_date

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def fields(**values: str) -> CIMultiDict[str]:
    return CIMultiDict((name.replace("_", "-"), value) for name, value in values.items())


def date(seconds: float) -> str:
    return format_http_date(NOW + seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Cache_Control": "public"}, None),
        ({"Cache_Control": "max-age=30"}, 30),
        ({"Cache_Control": "max-age=30, s-maxage=10"}, 10),
        ({"Cache_Control": "max-age=30", "Age": "12"}, 30),
        ({"Cache_Control": "max-age=soon"}, 0),
        ({"Cache_Control": "max-age=30", "Expires": date(0)}, 30),
        ({"Date": date(0), "Expires": date(60)}, 60),
        ({"Date": date(-30), "Expires": date(30)}, 60),
        ({"Expires": date(60)}, 60),
        ({"Date": "?", "Expires": date(60)}, 60),
        ({"Expires": "0"}, 0),
        ({"Expires": "Tue, 14 Nov 2023 22:14:20 -0000"}, 0),
        ({"CDN_Cache_Control": "no-cache", "Expires": date(60)}, None),
    ],
)
def test_the_upstream_gives_a_lifetime(headers: dict[str, str], seconds: float | None) -> None:
    response = fields(**headers)
    control = response_control(response, ("CDN-Cache-Control",))

    assert explicit_lifetime(response, control, NOW) == seconds


def test_two_different_expiries_are_none() -> None:
    response = CIMultiDict([("Expires", date(60)), ("Expires", date(90))])

    assert explicit_lifetime(response, response_control(response), NOW) == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("7, 9", 7), ("0, 9", 0), ("x", 0), ("-7", 0), ("7.0", 0), ("9" * 20, 2**31)],
)
def test_age_is_what_earlier_caches_noted(text: str, seconds: int) -> None:
    assert age_seconds(fields(Age=text)) == seconds
    assert age_seconds(fields()) == 0


@pytest.mark.parametrize(
    ("headers", "age"),
    [
        ({}, 2),  # the time the answer took
        ({"Age": "10"}, 12),
        ({"Date": date(-30)}, 30),
        ({"Date": date(-30), "Age": "40"}, 42),
        ({"Date": date(30)}, 2),
        ({"Date": "?"}, 2),
    ],
)
def test_the_age_on_arrival(headers: dict[str, str], age: float) -> None:
    assert born_at(fields(**headers), NOW - 2, NOW) == NOW - age


def test_within_its_second_date_makes_nothing_older() -> None:
    assert born_at(fields(Date=date(0)), NOW + 0.9, NOW + 0.9) == NOW + 0.9


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (200, {"Last_Modified": date(-1000), "Date": date(0)}, 100),
        (200, {"Last_Modified": date(-1000)}, 100),
        (404, {"Last_Modified": date(-1000)}, 100),
        (403, {"Last_Modified": date(-1000)}, 0),
        (403, {"Last_Modified": date(-1000), "Cache_Control": "public"}, 100),
        (200, {"Last_Modified": date(1000)}, 0),
        (200, {"Last_Modified": "?"}, 0),
        (200, {}, 0),
    ],
)
def test_a_heuristic_is_a_share_of_the_time_unchanged(
    status: int, headers: dict[str, str], seconds: float
) -> None:
    response = fields(**headers)

    found = heuristic_lifetime(status, response, response_control(response), 0.1, NOW)

    assert found == pytest.approx(seconds)


def test_without_a_share_there_is_no_heuristic() -> None:
    response = fields(Last_Modified=date(-1000))

    assert heuristic_lifetime(200, response, response_control(response), 0, NOW) == 0


def terms(**given: Any) -> Terms:
    return Terms(born_at=NOW, fresh_until=NOW + 5, **given)


def test_freshness_ends_at_its_moment() -> None:
    assert terms().is_fresh(NOW + 4.9)
    assert not terms().is_fresh(NOW + 5)
    assert not terms(validate=True).is_fresh(NOW)


@pytest.mark.parametrize("given", [{"strict": True}, {"validate": True}])
def test_what_must_be_revalidated_is_not_served_stale(given: dict[str, bool]) -> None:
    assert not terms(**given).may_be_stale(NOW + 6, 60)


def test_other_answers_may_be_served_stale_for_a_time() -> None:
    assert terms().may_be_stale(NOW + 15, 10)
    assert not terms().may_be_stale(NOW + 16, 10)


def test_to_expire_makes_nothing_fresh_again() -> None:
    assert terms().expired(NOW + 1).fresh_until == NOW + 1
    assert terms().expired(NOW + 9).fresh_until == NOW + 5


def test_age_is_whole_seconds_and_never_negative() -> None:
    stored = StoredResponse(200, CIMultiDictProxy(CIMultiDict()), b"", terms())

    assert stored.age_seconds(NOW + 2.9) == 2
    assert stored.age_seconds(NOW - 9) == 0
