"""Hop-by-hop fields and structured values."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.core.header import (
    accepts,
    append_member,
    connection_options,
    nominated_fields,
    strip_hop_by_hop,
    structured_integer,
    structured_string,
)


def fields(*pairs: tuple[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(pairs)


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization"),
        *("Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "upgrade"),
    ],
)
def test_a_hop_by_hop_field_is_stripped(name: str) -> None:
    assert list(strip_hop_by_hop(fields((name, "x"), ("Accept", "*/*")))) == ["Accept"]


def test_a_field_that_connection_lists_is_stripped() -> None:
    headers = fields(("Connection", "close, X-One"), ("connection", "x-TWO"))
    headers.extend({"X-One": "1", "x-two": "2", "X-Three": "3"})

    assert list(strip_hop_by_hop(headers)) == ["X-Three"]


@pytest.mark.parametrize("name", ["Content-Length", "Host"])
def test_framing_and_host_stay_whatever_connection_lists(name: str) -> None:
    headers = fields(("Connection", name), (name, "5"))

    assert strip_hop_by_hop(headers) == fields((name, "5"))


def test_repeated_fields_stay_in_order() -> None:
    headers = fields(("Set-Cookie", "a"), ("TE", "trailers"), ("Set-Cookie", "b"))

    assert strip_hop_by_hop(headers).getall("Set-Cookie") == ["a", "b"]


def test_stripping_leaves_the_original_as_it_was() -> None:
    headers = fields(("TE", "trailers"))
    strip_hop_by_hop(headers)

    assert headers == fields(("TE", "trailers"))


def test_empty_connection_options_are_none() -> None:
    assert connection_options(fields(("Connection", " , ,keep-alive"))) == {"keep-alive"}
    assert connection_options(fields()) == frozenset()


def test_how_long_a_connection_lasts_names_no_field() -> None:
    headers = fields(("Connection", "Keep-Alive, Close, X-Api-Key"))

    assert nominated_fields(headers) == {"x-api-key"}


def test_a_member_joins_all_lines_of_the_list() -> None:
    headers = fields(("Cache-Status", "a; hit"), ("cache-status", "b"))
    append_member(headers, "Cache-Status", "c")

    assert headers.getall("Cache-Status") == ["a; hit, b, c"]


def test_the_first_member_makes_the_list() -> None:
    headers = fields()
    append_member(headers, "Cache-Status", "gateway; hit")

    assert headers["Cache-Status"] == "gateway; hit"


@pytest.mark.parametrize(
    ("text", "written"), [("burst", '"burst"'), ("", '""'), ('a"b\\c', '"a\\"b\\\\c"')]
)
def test_a_string_is_quoted_and_escaped(text: str, written: str) -> None:
    assert structured_string(text) == written


@pytest.mark.parametrize("text", ["é", "a\nb", "\x7f", "tab\t"])
def test_a_string_is_printable_ascii(text: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        structured_string(text)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_a_string_reads_back(text: str) -> None:
    assert ast.literal_eval(structured_string(text)) == text  # Python unescapes these two alike


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, "0"), (11.000001, "12"), (60.0, "60"), (-0.5, "0"), (1e20, "9" * 15)],
)
def test_an_integer_is_rounded_up_within_15_digits(number: float, written: str) -> None:
    assert structured_integer(number) == written


@pytest.mark.parametrize(
    "accepted",
    ["text/event-stream", "text/html, Text/Event-Stream ; q=0.1", "text/event-stream;a=b"],
)
def test_a_type_is_accepted_by_its_name(accepted: str) -> None:
    assert accepts(accepted, "text/event-stream")


@pytest.mark.parametrize(
    "accepted",
    [
        "text/event-stream;q=0",
        "text/event-stream; q=0.000",
        "text/*",
        "*/*",
        "text/event-stream2",
        "",
    ],
)
def test_a_type_that_is_refused_or_within_a_range_is_not_asked_for(accepted: str) -> None:
    assert not accepts(accepted, "text/event-stream")
