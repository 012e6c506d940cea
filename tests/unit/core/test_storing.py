"""What a shared cache may keep, and on what terms."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.core.freshness import Terms
from gateway.core.http_date import format_http_date
from gateway.core.storing import StoringRule, stored_fields, storing_terms

NOW = 1_700_000_000.0
MODIFIED = format_http_date(NOW - 1000)


def keep(
    headers: dict[str, str], status: int = 200, *, authorized: bool = False, **rule: Any
) -> Terms | None:
    return storing_terms(
        status,
        CIMultiDict(headers),
        asked_at=NOW,
        now=NOW,
        authorized=authorized,
        rule=StoringRule(**rule),
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cache-Control": "no-store, max-age=9"},
        {"Cache-Control": "private, max-age=9"},
        {"Cache-Control": "max-age=9", "CDN-Cache-Control": "no-store"},
        {"Cache-Control": "max-age=9", "Vary": "Accept, *"},
        {"Cache-Control": "max-age=9", "Set-Cookie": "a=b"},
        {"Cache-Control": "max-age=0"},
        {"Cache-Control": "no-cache"},
        {"Cache-Control": "max-age=9", "Age": "9"},
        {"Expires": "0"},
    ],
)
def test_what_may_not_be_kept_or_is_of_no_use(headers: dict[str, str]) -> None:
    assert keep(headers) is None


@pytest.mark.parametrize("status", [206, 304])
def test_a_part_or_a_304_is_never_kept(status: int) -> None:
    assert keep({"Cache-Control": "max-age=9"}, status) is None


@pytest.mark.parametrize("status", [200, 299, 302, 404, 499, 500, 599])
def test_any_final_answer_with_a_lifetime_is_kept(status: int) -> None:
    assert keep({"Cache-Control": "max-age=9"}, status) == Terms(NOW, NOW + 9)


@pytest.mark.parametrize(("status", "kept"), [(200, True), (404, True), (201, False), (503, False)])
def test_without_a_lifetime_the_status_decides(status: int, *, kept: bool) -> None:
    headers = {"Last-Modified": MODIFIED}

    assert (keep(headers, status, heuristic_fraction=0.1) is not None) == kept


def test_a_heuristic_is_bounded() -> None:
    terms = keep({"Last-Modified": MODIFIED}, heuristic_fraction=0.1, heuristic_seconds=30.0)

    assert terms == Terms(NOW, NOW + 30)


@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("said", ["max-age=0", "no-cache", "public"])
def test_what_can_be_validated_is_worth_keeping(name: str, said: str) -> None:
    terms = keep({name: MODIFIED, "Cache-Control": said})

    assert terms is not None
    assert not terms.is_fresh(NOW)


def test_what_may_be_served_stale_is_worth_keeping() -> None:
    assert keep({"Cache-Control": "max-age=0, stale-while-revalidate=9"}) is not None
    assert keep({"Cache-Control": "max-age=0, stale-if-error=9"}) is not None


def test_a_cookie_is_kept_where_the_policy_has_it() -> None:
    assert keep({"Cache-Control": "max-age=9", "Set-Cookie": "a=b"}, cookies=True) is not None


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("max-age=9", False),
        ("max-age=9, public", True),
        ("max-age=9, must-revalidate", True),
        ("s-maxage=9", True),
    ],
)
def test_an_answer_to_authorization_needs_leave(said: str, *, kept: bool) -> None:
    terms = keep({"Cache-Control": said}, authorized=True)

    assert (terms is not None) == kept
    assert terms is None or terms.shared


@pytest.mark.parametrize(("status", "kept"), [(200, True), (599, False)])
def test_must_understand_overrides_no_store_for_a_known_status(status: int, *, kept: bool) -> None:
    said = {"Cache-Control": "max-age=9, no-store, must-understand"}

    assert (keep(said, status) is not None) == kept


def test_a_status_not_understood_is_not_kept_when_it_must_be() -> None:
    assert keep({"Cache-Control": "max-age=9, must-understand"}, 599) is None


def test_terms_tell_how_it_may_be_stale() -> None:
    said = "max-age=9, stale-while-revalidate=3, stale-if-error=4"
    assert keep({"Cache-Control": said}) == Terms(NOW, NOW + 9, 3, 4)

    for strict in ("max-age=9, must-revalidate", "max-age=9, proxy-revalidate", "s-maxage=9"):
        terms = keep({"Cache-Control": strict})
        assert terms is not None
        assert terms.strict


def test_what_belongs_to_one_answer_is_not_stored() -> None:
    names = ("Age", "Cache-Status", "RateLimit", "X-RateLimit-Left", "X-Request-ID", "A", "B")
    response = CIMultiDict((name, "1") for name in (*names, "Proxy-Authenticate", "Content-Type"))
    response["Cache-Control"] = 'no-cache="a"'

    kept = stored_fields(response, StoringRule())

    assert set(kept) == {"B", "Content-Type", "Cache-Control"}
