"""Compressed bodies within a bound."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest

from gateway.core.inflate import Inflated, InflateFault, gunzip

MIB = 1024**2


@pytest.mark.parametrize("plain", [b"", b"x", b"text " * 1000])
def test_a_body_is_made_plain(plain: bytes) -> None:
    assert gunzip(gzip.compress(plain), len(plain)) == plain


def test_all_members_count() -> None:
    assert gunzip(gzip.compress(b"a") + gzip.compress(b"b"), 2) == b"ab"
    with pytest.raises(Inflated):
        gunzip(gzip.compress(b"a") + gzip.compress(b"bc"), 2)


def test_a_bomb_ends_at_the_bound_and_takes_no_more_memory() -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(Inflated, match="more than 1048576 bytes"):
            gunzip(bomb, MIB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * MIB


@pytest.mark.parametrize(
    "body",
    [
        b"plain",
        gzip.compress(b"x" * 100)[:-9],
        gzip.compress(b"x") + b"more",
        gzip.compress(b"x" * 100)[:12] + b"\xff" * 20,
        b"\x1f\x8b",
    ],
)
def test_what_is_no_gzip_is_told(body: bytes) -> None:
    with pytest.raises(InflateFault, match="gzip"):
        gunzip(body, MIB)
