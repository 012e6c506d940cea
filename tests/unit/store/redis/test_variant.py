"""How a cached response is written down."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.freshness import StoredResponse, Terms
from gateway.store.redis.variant import digest, packed, unpacked

TEXT = st.text(st.characters(codec="latin-1"), max_size=12)
RESPONSES = st.builds(
    StoredResponse,
    st.integers(200, 599),
    st.lists(st.tuples(TEXT, TEXT), max_size=4).map(lambda f: CIMultiDictProxy(CIMultiDict(f))),
    st.binary(max_size=3000),
    st.builds(Terms, st.floats(0, 1e10), st.floats(0, 1e10), strict=st.booleans()),
    st.lists(st.tuples(TEXT, st.none() | TEXT), max_size=2).map(tuple),
)


@given(st.lists(RESPONSES, max_size=3))
def test_what_is_written_is_read(responses: list[StoredResponse]) -> None:
    assert list(unpacked(b"".join(map(packed, responses)))) == responses


def response(body: bytes, **headers: str) -> StoredResponse:
    return StoredResponse(200, CIMultiDictProxy(CIMultiDict(headers)), body, Terms(0, 1))


def test_a_body_is_compressed_where_it_pays() -> None:
    text = b'{"status": "running"}' * 1000
    noise = bytes(digest(str(number))[0] for number in range(5000))

    assert len(packed(response(text))) < len(text) / 10
    assert len(packed(response(noise))) > len(noise)
    assert len(packed(response(text[:1000]))) > 1000
    coded = replace(
        response(text), headers=CIMultiDictProxy(CIMultiDict({"Content-Encoding": "x"}))
    )
    assert len(packed(coded)) > len(text)


@pytest.mark.parametrize("value", [b"x", b"\xff" * 40, packed(response(b"x"))[:-1], bytes(28)])
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the rest is the parser's words
        unpacked(value)


def test_an_absent_field_is_not_an_empty_one() -> None:
    heads = {
        packed(replace(response(b""), vary=vary))[:16]
        for vary in ((), (("a", None),), (("a", ""),), (("a", "b"),), (("a", None), ("b", None)))
    }

    assert len(heads) == 5


def test_no_two_lists_have_one_digest() -> None:
    assert digest("a", "b") != digest("ab") != digest("a b")
    assert digest("\udcff") != digest("\udcfe")
