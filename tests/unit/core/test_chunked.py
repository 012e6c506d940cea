"""Where chunked bodies end, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.chunked import ChunkedScanner
from gateway.core.error import InvalidRequest


def encoded(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    after=st.binary(max_size=10),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=20),
)
def test_a_body_ends_where_it_ends_however_it_is_cut(
    chunks: list[bytes], after: bytes, cuts: list[int]
) -> None:
    body = encoded(chunks)
    data, scanner, taken, turn = body + after, ChunkedScanner(), 0, 0
    while taken < len(data) and not scanner.is_done:
        piece = data[taken : taken + cuts[turn % len(cuts)]]
        taken += scanner.feed(piece)
        turn += 1

    assert (scanner.is_done, taken) == (True, len(body))


def test_nothing_is_taken_after_the_end() -> None:
    scanner = ChunkedScanner()
    assert scanner.feed(b"0\r\n\r\nGET") == 5
    assert scanner.feed(b"more") == 0


@pytest.mark.parametrize(
    "body",
    [
        b"3;a=b\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"g\r\nabc\r\n0\r\n\r\n",
        b"0\r\nX-Trailer: 1\r\n\r\n",
        b"1" * 16 + b"\r\n",
        b"\xd9\xa3\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_what_another_parser_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="chunks are malformed"):
        ChunkedScanner().feed(body)
