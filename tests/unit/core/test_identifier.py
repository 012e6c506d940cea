"""Sortable identifiers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.identifier import derived, ulid

TIMES = st.floats(min_value=0, max_value=2**48 / 1000 - 1)
ENTROPY = st.binary(min_size=10, max_size=10)


@pytest.mark.parametrize(
    ("at", "entropy", "text"),
    [
        (0.0, bytes(10), "00000000000000000000000000"),
        (1469918176.385, bytes(10), "01ARYZ6S410000000000000000"),  # the time of the ULID spec
        ((2**48 - 1) / 1000, b"\xff" * 10, "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"),  # the spec's largest
    ],
)
def test_ulid_of_known_time_and_bits(at: float, entropy: bytes, text: str) -> None:
    assert ulid(at, entropy) == text


@given(TIMES, ENTROPY)
def test_ulid_is_26_characters_of_crockford_base_32(at: float, entropy: bytes) -> None:
    text = ulid(at, entropy)
    assert len(text) == 26
    assert set(text) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@given(TIMES, TIMES, ENTROPY, ENTROPY)
def test_ulids_sort_by_millisecond(one: float, other: float, low: bytes, high: bytes) -> None:
    if int(one * 1000) < int(other * 1000):
        assert ulid(one, low) < ulid(other, high)


@pytest.mark.parametrize("size", [0, 9, 11])
def test_ulid_takes_exactly_ten_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        ulid(0.0, bytes(size))


def test_derived_again_is_the_same() -> None:
    assert derived("dlv_", 1.0, "evt", "hook") == derived("dlv_", 1.0, "evt", "hook")
    assert derived("dlv_", 1.0, "evt", "hook").startswith("dlv_")


def test_derived_differs_by_part_and_by_where_parts_are_cut() -> None:
    made = {
        derived("dlv_", 1.0, "a", "b"),
        derived("dlv_", 1.0, "ab"),
        derived("dlv_", 1.0, "b", "a"),
        derived("dlv_", 1.0, "a", "b", ""),
        derived("dlv_", 1.0, "a", 1),
        derived("dlv_", 2.0, "a", "b"),
    }
    assert len(made) == 6
