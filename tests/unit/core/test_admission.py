"""How long until one of the active jobs ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.admission import expected_wait_seconds

TOOK = [100.0, 200.0, 300.0, 400.0, 500.0]


@pytest.mark.parametrize(
    ("ages", "wait"),
    [
        ([0], 300),  # half took no longer
        ([150], 150),  # of those that took longer: 200, 300, 400, 500
        ([450], 50),
        ([0, 250, 10], 150),  # the first that likely ends: of 300, 400, 500
        ([600], 30),  # older than any
        ([600, 450], 50),
        ([], 30),
    ],
)
def test_the_wait_follows_what_others_took(ages: list[float], wait: float) -> None:
    assert expected_wait_seconds(ages, TOOK, 30.0) == wait


def test_without_experience_there_is_a_default() -> None:
    assert expected_wait_seconds([1.0, 2.0], [], 30.0) == 30.0


@given(
    st.lists(st.floats(0, 1e4), min_size=1),
    st.lists(st.floats(0, 1e4), min_size=1),
    st.floats(0.1, 60.0),
)
def test_a_wait_is_never_negative_nor_longer_than_the_longest(
    ages: list[float], durations: list[float], default: float
) -> None:
    wait = expected_wait_seconds(ages, durations, default)

    assert 0 < wait <= max(*durations, default)
