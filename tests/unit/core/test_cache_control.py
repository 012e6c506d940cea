"""What `Cache-Control` and its targeted kin say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.core.cache_control import (
    NOTHING_SAID,
    CacheControl,
    delta_seconds,
    request_control,
    response_control,
)

TARGETS = ("CDN-Cache-Control",)


def said(text: str) -> CacheControl:
    return response_control(CIMultiDict({"Cache-Control": text}))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", CacheControl()),
        ("no-store", CacheControl(no_store=True)),
        ("No-Store, MAX-AGE=5", CacheControl(no_store=True, max_age=5)),
        (",, ,no-cache", CacheControl(no_cache=True)),
        ("private, public", CacheControl(private=True, public=True)),
        ('max-age="7"', CacheControl(max_age=7)),
        ("max-age=007", CacheControl(max_age=7)),
        ("max-age=5, max-age=9", CacheControl(max_age=5)),
        ("s-maxage=3,max-age=1", CacheControl(s_maxage=3, max_age=1)),
        ("foo, max-age=1, bar=2", CacheControl(max_age=1)),
        ('x="max-age=9, no-store", max-age=1', CacheControl(max_age=1)),
        ("must-revalidate", CacheControl(must_revalidate=True)),
        ("proxy-revalidate", CacheControl(must_revalidate=True)),
        ("must-understand", CacheControl(must_understand=True)),
        ("stale-while-revalidate=8", CacheControl(stale_while_revalidate=8)),
        ("stale-if-error=8", CacheControl(stale_if_error=8)),
    ],
)
def test_directives_are_read(text: str, found: CacheControl) -> None:
    assert said(text) == found


@pytest.mark.parametrize(
    "text", ["max-age=", "max-age", "max-age=-1", "max-age=1.5", "max-age =9", "max-age= 9"]
)
def test_a_freshness_that_cannot_be_read_is_none_at_all(text: str) -> None:
    assert said(text).max_age == 0
    assert said(f"x, {text}").max_age == 0


@pytest.mark.parametrize("text", ["max-age='9'", "max-age=9a", 'max-age="9 "'])
def test_nor_is_one_in_other_spellings(text: str) -> None:
    assert said(text).max_age == 0


def test_what_extends_reuse_and_cannot_be_read_grants_nothing() -> None:
    assert said("stale-while-revalidate=soon, stale-if-error") == NOTHING_SAID


def test_fields_that_are_withheld_do_not_forbid_the_rest() -> None:
    control = said('no-cache="Set-Cookie, X", private="y"')

    assert control == CacheControl(withheld=frozenset({"set-cookie", "x", "y"}))


@pytest.mark.parametrize("text", ['no-cache=""', "no-cache=", 'private="x'])
def test_a_list_that_cannot_be_read_stands_for_everything(text: str) -> None:
    control = said(text)

    assert control.no_cache or control.private


def test_several_lines_are_one_list() -> None:
    headers = CIMultiDict([("Cache-Control", "max-age=5"), ("cache-control", "no-store")])

    assert response_control(headers) == CacheControl(max_age=5, no_store=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("max-stale", CacheControl(max_stale=math.inf)),
        ("max-stale=4", CacheControl(max_stale=4)),
        ("max-stale=x", CacheControl()),
        ("min-fresh=4, only-if-cached", CacheControl(min_fresh=4, only_if_cached=True)),
    ],
)
def test_a_client_may_ask_for_less_or_more(text: str, found: CacheControl) -> None:
    assert request_control(CIMultiDict({"Cache-Control": text})) == found


def test_pragma_counts_only_without_cache_control() -> None:
    assert request_control(CIMultiDict({"Pragma": "No-Cache"})).no_cache
    assert request_control(CIMultiDict({"Pragma": "x"})) == NOTHING_SAID
    both = CIMultiDict({"Pragma": "no-cache", "Cache-Control": "max-age=1"})
    assert request_control(both) == CacheControl(max_age=1)
    assert request_control(CIMultiDict()) == NOTHING_SAID


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("300", 300),
        ("9" * 30, 2**31),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("\N{ARABIC-INDIC DIGIT THREE}", None),
    ],
)
def test_delta_seconds_are_digits(text: str, seconds: int | None) -> None:
    assert delta_seconds(text) == seconds


def targeted(text: str) -> CacheControl:
    headers = CIMultiDict({"CDN-Cache-Control": text, "Cache-Control": "no-store"})
    return response_control(headers, TARGETS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("max-age=9", CacheControl(max_age=9, is_targeted=True)),
        ("no-store", CacheControl(no_store=True, is_targeted=True)),
        ("foo, max-age=9;x=1 , private", CacheControl(max_age=9, private=True, is_targeted=True)),
        ("max-age=1, max-age=9", CacheControl(max_age=9, is_targeted=True)),
        ("max-age=99999999999", CacheControl(max_age=2**31, is_targeted=True)),
        # A value of another type is none.
        ('max-age="9"', CacheControl(is_targeted=True)),
        ("max-age=9.5, private=?0", CacheControl(is_targeted=True)),
        ('no-store=?1, x=("a" b;c);d', CacheControl(no_store=True, is_targeted=True)),
    ],
)
def test_a_targeted_field_stands_above_cache_control(text: str, found: CacheControl) -> None:
    assert targeted(text) == found


@pytest.mark.parametrize(
    "text", ["", "max-age=9, &&&", "max-age =9", "max-age= 9", "MaX-aGe=9", "max-age=9,", 'x="']
)
def test_a_malformed_one_is_passed_over(text: str) -> None:
    assert targeted(text) == CacheControl(no_store=True)


def test_a_field_for_others_is_not_read() -> None:
    headers = CIMultiDict({"Surrogate-Control": "max-age=9"})

    assert response_control(headers, TARGETS) == NOTHING_SAID


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_no_text_breaks_the_readers(text: str) -> None:
    headers = CIMultiDict({"Cache-Control": text, "CDN-Cache-Control": text})

    assert response_control(headers, TARGETS).max_age in {None, *range(10**6)}
    assert request_control(headers).only_if_cached in (True, False)
