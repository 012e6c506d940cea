"""HTTP dates are read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.http_date import format_http_date, parse_http_date

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    "text",
    [
        "Tue, 14 Nov 2023 22:13:20 GMT",
        "TUE, 14 NOV 2023 22:13:20 gmt",
        "Tuesday, 14-Nov-23 22:13:20 GMT",
        "Tue Nov 14 22:13:20 2023",
    ],
)
def test_each_form_of_a_date_is_read(text: str) -> None:
    assert parse_http_date(text, NOW) == NOW


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "Tue, 14 Nov 2023 22:13:20 UTC",
        "Tue, 14 Nov 2023 22:13:20 +0000",
        "Tue, 14 Nov 23 22:13:20 GMT",
        "Tue 14 Nov 2023 22:13:20 GMT",
        "Tue, 14  Nov  2023 22:13:20 GMT",
        "Tue, 14-Nov-2023 22:13:20 GMT",
        "Tue, 14 Nov 2023 22.13.20 GMT",
        "Tue, 14 Nov 2023 2:13:20 GMT",
        "Tue, 31 Feb 2023 22:13:20 GMT",
        "Tue, 14 Nov 2023 24:13:20 GMT",
        "Tue, 14 Nov 2023 22:13:20 GMT, Tue, 14 Nov 2023 22:13:20 GMT",
        "Tue, 1\N{ARABIC-INDIC DIGIT FOUR} Nov 2023 22:13:20 GMT",
    ],
)
def test_whatever_else_is_no_date(text: str) -> None:
    assert parse_http_date(text, NOW) is None


def test_a_leap_second_counts_as_the_one_before() -> None:
    at = parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW)

    assert at == parse_http_date("Sat, 31 Dec 2016 23:59:59 GMT", NOW)


@pytest.mark.parametrize(("year", "meant"), [("23", 2023), ("73", 2073), ("74", 1974)])
def test_a_year_of_two_digits_is_never_more_than_50_years_ahead(year: str, meant: int) -> None:
    at = parse_http_date(f"Tuesday, 14-Nov-{year} 22:13:20 GMT", NOW)

    assert at == parse_http_date(f"Tue, 14 Nov {meant} 22:13:20 GMT", NOW)


@given(st.integers(0, 4_000_000_000))
def test_what_is_written_is_read(at: int) -> None:
    assert parse_http_date(format_http_date(at), NOW) == at
