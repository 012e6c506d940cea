"""JSON that every parser reads alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.strict_json import JsonFault, depth_exceeds, parse

DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(DOCUMENTS)
def test_good_json_is_read_as_it_is(document: Any) -> None:
    assert parse(json.dumps(document).encode(), 64) == document


@given(DOCUMENTS, st.integers(min_value=1, max_value=6))
def test_depth_is_that_of_the_document(document: Any, limit: int) -> None:
    def depth(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value
        nested = isinstance(value, dict | list)
        return 1 + max(map(depth, inner), default=0) if nested else 0

    assert depth_exceeds(json.dumps(document).encode(), limit) == (depth(document) > limit)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"a": 1, "b": {"a": 2, "a": 3}}', "has the key 'a' twice"),
        (b'{"a": NaN}', "holds NaN"),
        (b"[Infinity]", "holds Infinity"),
        (b"[-Infinity]", "holds -Infinity"),
        (b"[" * 9 + b"]" * 9, "deeper than 8 levels"),
        (b"[" * 100_000, "deeper than 8 levels"),
        (b'{"a":' * 9, "deeper than 8 levels"),
        (b'{"a"', "is not JSON: "),
        (b"", "is not JSON: "),
        (b'{"a": "\xff"}', "is not UTF-8 at byte 7"),
        (b"\xef\xbb\xbf{}", "is not JSON: "),
        (b'["\\ud800"]', "half of a surrogate pair"),
        (b"[" + b"9" * 5000 + b"]", "too many digits"),
        (b"{} {}", "is not JSON: Extra data"),
    ],
)
def test_what_parsers_read_differently_is_told(body: bytes, said: str) -> None:
    with pytest.raises(JsonFault, match=said):
        parse(body, 8)


def test_brackets_in_strings_do_not_nest() -> None:
    assert parse(b'["' + b"[{" * 50 + b'", "\\"[[[[[[[["]', 2) == ["[{" * 50, '"[[[[[[[[']


def test_a_whole_surrogate_pair_is_text() -> None:
    assert parse(b'["\\ud83d\\ude00"]', 2) == ["\U0001f600"]
