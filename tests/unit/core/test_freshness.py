"""What RFC 9111 lets a shared cache keep, and for how long."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.core.freshness import (
    StoredResponse,
    age_seconds,
    allowed_seconds,
    delta_seconds,
    directives,
    may_store,
    vary_values,
)

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


def fields(**values: str) -> CIMultiDict[str]:
    return CIMultiDict((name.replace("_", "-"), value) for name, value in values.items())


def stored(**values: str) -> StoredResponse:
    return StoredResponse(200, tuple(fields(**values).items()), b"{}", NOW, NOW + 5)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no-store", {"no-store": ""}),
        ("No-Store, MAX-AGE=5", {"no-store": "", "max-age": "5"}),
        ('private="a, no-store", max-age="7"', {"private": "a, no-store", "max-age": "7"}),
        ("max-age=5, max-age=9", {"max-age": "5"}),
        ("", {}),
        (",, ,no-cache", {"no-cache": ""}),
        ("max-age=", {"max-age": ""}),
    ],
)
def test_directives_are_read(text: str, found: dict[str, str]) -> None:
    assert directives(fields(Cache_Control=text)) == found


def test_directives_of_several_lines_are_one_list() -> None:
    headers = CIMultiDict([("Cache-Control", "max-age=5"), ("cache-control", "no-store")])

    assert directives(headers) == {"max-age": "5", "no-store": ""}


def test_pragma_counts_only_without_cache_control() -> None:
    assert directives(fields(Pragma="No-Cache")) == {"no-cache": ""}
    assert directives(fields(Pragma="x")) == {}
    assert directives(fields(Pragma="no-cache", Cache_Control="max-age=1")) == {"max-age": "1"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("300", 300),
        ("9" * 30, 2**31),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("٣", None),
    ],
)
def test_delta_seconds_are_digits(text: str, seconds: int | None) -> None:
    assert delta_seconds(text) == seconds


@pytest.mark.parametrize("said", ["no-store", "private", "no-cache", 'private="x"'])
def test_what_the_upstream_forbids_to_store_is_not_stored(said: str) -> None:
    assert not may_store(fields(Cache_Control=said))


def test_a_cookie_or_an_answer_to_anything_is_not_stored() -> None:
    assert not may_store(fields(Set_Cookie="a=b"))
    assert not may_store(fields(Vary="Accept, *"))


def test_a_plain_answer_may_be_stored() -> None:
    assert may_store(fields(Vary="Accept", Cache_Control="max-age=5"))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Cache_Control": "max-age=30"}, 30),
        ({"Cache_Control": "max-age=30, s-maxage=10"}, 10),
        ({"Cache_Control": "max-age=30", "Age": "12"}, 18),
        ({"Cache_Control": "max-age=soon"}, 0),
        ({"Cache_Control": "max-age=30", "Expires": DATE}, 30),
        ({"Date": DATE, "Expires": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60),
        ({"Expires": "Tue, 14 Nov 2023 22:14:20 GMT", "Age": "20"}, 40),
        ({"Expires": "0"}, 0),
        ({"Date": "?", "Expires": "Tue, 14 Nov 2023 22:14:20 -0000"}, 60),
    ],
)
def test_the_upstream_bounds_freshness(headers: dict[str, str], seconds: float | None) -> None:
    assert allowed_seconds(fields(**headers), NOW) == seconds


@pytest.mark.parametrize(("text", "seconds"), [("7", 7), ("7, 9", 7), ("x", 0)])
def test_age_is_what_earlier_caches_noted(text: str, seconds: int) -> None:
    assert age_seconds(fields(Age=text)) == seconds
    assert age_seconds(fields()) == 0


def test_a_variant_answers_requests_with_the_same_values() -> None:
    made_for = CIMultiDict([("Accept-Language", "de ,en"), ("X-Other", "1")])
    vary = vary_values(fields(Vary="ACCEPT-LANGUAGE, Accept, "), made_for)
    variant = StoredResponse(200, (), b"", NOW, NOW, vary)

    assert vary == (("accept", ""), ("accept-language", "de,en"))
    assert variant.answers(CIMultiDict([("accept-language", "de"), ("Accept-Language", "en")]))
    assert not variant.answers(fields(Accept_Language="en,de"))
    assert not variant.answers(fields(Accept_Language="de,en", Accept="text/html"))


def test_freshness_ends_at_its_moment() -> None:
    assert stored().is_fresh(NOW + 4.9)
    assert not stored().is_fresh(NOW + 5)


def test_age_is_whole_seconds_and_never_negative() -> None:
    assert stored().age_seconds(NOW + 2.9) == 2
    assert stored().age_seconds(NOW - 9) == 0


@pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "s-maxage=5", "no-cache"])
def test_what_must_be_revalidated_is_not_served_stale(said: str) -> None:
    assert not stored(Cache_Control=said).may_be_stale()


def test_other_answers_may_be_served_stale() -> None:
    assert stored(Cache_Control="max-age=5").may_be_stale()
    assert stored().may_be_stale()


def test_a_response_costs_its_bytes_and_some_more() -> None:
    small = StoredResponse(200, (("A", "b"),), b"12345", NOW, NOW, (("c", "de"),), ("tag",))

    assert small.size_bytes == 5 + 2 + 3 + 3 + 256
