"""The pace keeps its bound in every second, falls when the upstream suffers, and comes back."""

from __future__ import annotations

import bisect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.pace import MAX_HOLD_SECONDS, Pace

STEP = st.tuples(
    st.floats(0, 2, allow_nan=False),  # how late the timer comes
    st.sampled_from(["answered", "slow", "refused", "held", "nothing"]),
    st.booleans(),
)


ROUNDING_SECONDS = 1e-9  # sums of floats miss a whole second by less


def busiest(times: list[float], seconds: float = 1.0 - ROUNDING_SECONDS) -> int:
    """The most of them that fall in any such span, wherever it begins."""
    return max(bisect.bisect_left(times, at + seconds) - i for i, at in enumerate(times))


def step(pace: Pace, now: float, what: str) -> None:
    match what:
        case "answered":
            pace.answered(now, now + 0.001)
        case "slow":
            pace.answered(now, now + 3.0)
        case "refused":
            pace.refused(now, now)
        case "held":
            pace.refused(now, now, 2.0)


@given(bound=st.integers(1, 500), steps=st.lists(STEP, min_size=1, max_size=400))
def test_no_second_has_more_than_the_bound(
    bound: int, steps: list[tuple[float, str, bool]]
) -> None:
    pace, now, sent = Pace(bound), 0.0, list[float]()
    for late, what, urgent in steps:
        while wait := pace.wait(now, urgent=urgent):
            now += wait
        pace.take(now)
        sent.append(now)
        step(pace, now, what)
        now += late * late * late / bound
        assert min(1.0, bound) <= pace.rate <= bound
    assert busiest(sent) <= bound


@given(bound=st.floats(0.05, 5000), late=st.floats(0, 0.02))
def test_nearly_all_of_the_bound_can_be_used_though_timers_come_late(
    bound: float, late: float
) -> None:
    pace, now, count = Pace(bound), 0.0, 400
    for _ in range(count):
        while wait := pace.wait(now):
            now += wait + late
        pace.take(now)
    assert count / (now + 1 / bound) >= bound * 0.9 or late * bound > 400 * 0.05


@given(bound=st.integers(2, 500))
def test_requests_come_one_by_one(bound: int) -> None:
    pace, now, sent = Pace(bound), 0.0, list[float]()
    for _ in range(200):
        now += pace.wait(now)
        pace.take(now)
        sent.append(now)
    assert busiest(sent, 0.1) <= bound * 0.125 + 1


class TestSuffering:
    def test_refusal_halves_the_pace(self) -> None:
        pace = Pace(100)
        assert pace.refused(10.0, 10.5)
        assert pace.rate == 50

    def test_what_was_sent_at_the_pace_before_does_not_halve_it_again(self) -> None:
        pace = Pace(100)
        pace.refused(10.0, 10.5)
        assert not pace.refused(10.4, 10.6)
        assert pace.rate == 50
        assert pace.refused(10.5, 10.7)
        assert pace.rate == 25

    def test_it_never_stops_asking(self) -> None:
        for bound, least in ((0.5, 0.5), (50, 1), (1000, 10)):
            pace = Pace(bound)
            for now in range(100):
                pace.refused(now, now)
            assert pace.rate == least
            assert pace.wait(1000.0) == 0

    def test_retry_after_is_waited_for_and_for_no_longer_than_a_minute(self) -> None:
        pace = Pace(100)
        pace.refused(10.0, 10.0, 7.0)
        assert pace.wait(10.0) == 7.0
        assert pace.wait(16.0) == 1.0
        pace.refused(20.0, 20.0, 1e9)
        assert pace.wait(20.0) == MAX_HOLD_SECONDS

    def test_urgent_requests_wait_for_the_bound_alone(self) -> None:
        pace = Pace(10)
        pace.refused(10.0, 10.0, 7.0)
        assert pace.wait(10.0, urgent=True) == 0
        pace.take(10.0)
        assert 0 < pace.wait(10.0, urgent=True) <= 0.1

    def test_answers_that_take_long_ease_it_but_not_below_a_tenth(self) -> None:
        pace = Pace(100)
        pace.answered(1.0, 1.01)
        pace.answered(5.0, 6.0)
        assert pace.rate == 80
        for now in range(7, 30):
            pace.answered(float(now), now + 0.9)
        assert pace.rate == pytest.approx(10)

    def test_answers_that_take_a_little_longer_do_not(self) -> None:
        pace = Pace(100)
        pace.answered(1.0, 1.001)
        pace.answered(5.0, 5.1)
        assert pace.rate == 100

    def test_an_upstream_that_is_slow_for_good_is_asked_as_before_again(self) -> None:
        pace = Pace(100)
        pace.answered(1.0, 1.1)
        now = 2.0
        for _ in range(400):
            pace.answered(now, now + 1.0)
            now += 1.0
        assert pace.rate == 100


@given(bound=st.floats(1, 500), refusals=st.integers(1, 20))
def test_it_recovers_within_seconds_once_all_is_well(bound: float, refusals: int) -> None:
    pace, now = Pace(bound), 0.0
    for _ in range(refusals):
        now += 1.0
        pace.refused(now, now)
    healed = now
    while pace.rate < bound:
        now += max(pace.wait(now), 1e-4)
        pace.take(now)
        pace.answered(now, now + 0.005)
    assert now - healed <= 15
