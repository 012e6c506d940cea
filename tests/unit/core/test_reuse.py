"""The verdict on a request, by what is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.freshness import StoredResponse, Terms
from gateway.core.reuse import (
    Hit,
    Miss,
    NothingStored,
    Stale,
    Validate,
    may_serve_on_error,
    verdict,
)

NOW = 1_700_000_000.0


def entry(*, fresh: float = 60, age: float = 10, **terms: Any) -> StoredResponse:
    """A response that is fresh for this long yet."""
    return StoredResponse(
        200, CIMultiDictProxy(CIMultiDict()), b"x", Terms(NOW - age, NOW + fresh, **terms)
    )


def asking(control: str = "", **headers: str) -> CIMultiDict[str]:
    fields = CIMultiDict(headers)
    if control:
        fields["Cache-Control"] = control
    return fields


FRESH, STALE = entry(), entry(fresh=-5)


@pytest.mark.parametrize(
    ("control", "found", "wanted"),
    [
        ("", FRESH, Hit(FRESH)),
        ("", STALE, Validate(STALE, "stale")),
        ("foo", FRESH, Hit(FRESH)),
        ("no-cache", FRESH, Validate(FRESH, "request")),
        ("max-age=10", FRESH, Hit(FRESH)),
        ("max-age=9", FRESH, Validate(FRESH, "request")),
        ("max-age=soon", FRESH, Validate(FRESH, "request")),
        ("min-fresh=60", FRESH, Hit(FRESH)),
        ("min-fresh=61", FRESH, Validate(FRESH, "request")),
        ("max-stale", STALE, Hit(STALE)),
        ("max-stale=5", STALE, Hit(STALE)),
        ("max-stale=4", STALE, Validate(STALE, "stale")),
        ("only-if-cached", FRESH, Hit(FRESH)),
        ("only-if-cached", STALE, NothingStored()),
        ("only-if-cached, max-stale", STALE, Hit(STALE)),
        ("only-if-cached, no-cache", FRESH, NothingStored()),
    ],
)
def test_the_verdict_on_what_is_stored(control: str, found: StoredResponse, wanted: object) -> None:
    assert verdict(asking(control), [found], NOW) == wanted


@pytest.mark.parametrize(
    ("control", "wanted"),
    [("", Miss("uri-miss")), ("no-cache", Miss("request")), ("only-if-cached", NothingStored())],
)
def test_the_verdict_when_nothing_is_stored(control: str, wanted: object) -> None:
    assert verdict(asking(control), [], NOW) == wanted


def test_the_newest_variant_that_fits_is_taken() -> None:
    newest = replace(FRESH, vary=(("a", "1"),))
    variants = [replace(STALE, vary=(("a", "2"),)), newest, replace(STALE, vary=(("a", "1"),))]

    assert verdict(asking(a="1"), variants, NOW) == Hit(newest)
    assert verdict(asking(a="3"), variants, NOW) == Miss("vary-miss")


@pytest.mark.parametrize("control", ["", "max-stale"])
@pytest.mark.parametrize("terms", [{"strict": True}, {"validate": True}])
def test_what_must_be_revalidated_is(control: str, terms: dict[str, bool]) -> None:
    found = entry(fresh=-5, stale_while_seconds=60.0, **terms)

    assert verdict(asking(control), [found], NOW) == Validate(found, "stale")


def test_what_may_be_stale_while_it_is_revalidated_is() -> None:
    found = entry(fresh=-5, stale_while_seconds=6.0)

    assert verdict(asking(), [found], NOW) == Stale(found)
    assert verdict(asking(), [found], NOW + 2) == Validate(found, "stale")


def test_authorization_is_given_only_what_may_be_shared() -> None:
    shared = entry(shared=True)

    assert verdict(asking(Authorization="x"), [shared], NOW) == Hit(shared)
    assert verdict(asking(Authorization="x"), [FRESH], NOW) == Miss("vary-miss")


@pytest.mark.parametrize(
    ("control", "found", "allowed"),
    [
        ("", entry(fresh=-5), True),
        ("", entry(fresh=-11), False),
        ("", entry(fresh=-11, stale_error_seconds=20.0), True),
        ("stale-if-error=20", entry(fresh=-11), True),
        ("stale-if-error=20", entry(fresh=-11, strict=True), False),
        ("", entry(fresh=-5, validate=True), False),
        ("no-cache", entry(fresh=-5), False),
        ("max-age=60", entry(fresh=-5), False),
        ("min-fresh=1", entry(fresh=-5), False),
    ],
)
def test_what_may_stand_in_for_a_failed_upstream(
    control: str, found: StoredResponse, *, allowed: bool
) -> None:
    assert may_serve_on_error(asking(control), found, NOW, 10) == allowed
