"""Compressed bodies within a bound."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.inflate import Inflated, InflateFault, inflate
from tests.support.coding import CODERS, wide_zstd

MIB = 1024**2
PACKED = {name: compress(b"x" * 100) for name, compress in CODERS.items()}

each_coding = pytest.mark.parametrize("coding", list(CODERS))


@each_coding
@given(plain=st.binary(max_size=200), repeated=st.integers(1, 2000))
def test_a_body_is_made_plain(coding: str, plain: bytes, repeated: int) -> None:
    body = plain * repeated
    assert inflate(coding, CODERS[coding](body), len(body)) == body


@each_coding
def test_all_parts_count(coding: str) -> None:
    compress = CODERS[coding]
    assert inflate(coding, compress(b"a") + compress(b"b"), 2) == b"ab"
    with pytest.raises(Inflated):
        inflate(coding, compress(b"a") + compress(b"bc"), 2)


@each_coding
def test_a_bomb_ends_at_the_bound_and_takes_no_more_memory(coding: str) -> None:
    bomb = CODERS[coding](bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(Inflated, match="more than 1048576 bytes"):
            inflate(coding, bomb, MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * MIB


@each_coding
def test_a_body_of_countless_empty_parts_costs_no_time(coding: str) -> None:
    part = CODERS[coding](b"")
    body = part * (MIB // len(part))
    began = time.thread_time()
    with pytest.raises(InflateFault, match=f"more than 1024 parts of {coding}"):
        inflate(coding, body, MIB)

    assert time.thread_time() - began < 0.2


def test_a_window_beyond_what_the_coding_may_ask_for_is_refused() -> None:
    wide = wide_zstd(bytes(17 * MIB))
    with pytest.raises(InflateFault, match="zstd"):
        inflate("zstd", wide, 32 * MIB)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        *((coding, b"plain") for coding in CODERS),
        *((coding, packed[:-3]) for coding, packed in PACKED.items()),
        *((coding, packed[:2]) for coding, packed in PACKED.items()),
        *((coding, packed + b"more") for coding, packed in PACKED.items()),
        *((coding, packed[:8] + b"\xff" * 20) for coding, packed in PACKED.items()),
        ("gzip", PACKED["zstd"]),
        ("zstd", PACKED["gzip"]),
    ],
)
def test_what_is_not_in_its_coding_is_told(coding: str, body: bytes) -> None:
    with pytest.raises(InflateFault, match=coding):
        inflate(coding, body, MIB)
