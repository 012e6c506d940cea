"""Sliding windows, against a true log of what was admitted when."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.window import Hit, Quota, Window, WindowState, decide, microseconds

NOW = 1_700_000_000.0
MICROSECONDS = 1_000_000


def hit(
    limit: int = 3,
    window_seconds: float = 60.0,
    *,
    cost: int = 1,
    policy: str = "burst",
    shadow: bool = False,
) -> Hit:
    return Hit(Quota(policy, limit, window_seconds, shadow), "ip:192.0.2.1", cost)


def window_of(window_seconds: float) -> Window:
    return Window(Quota("burst", 1, window_seconds).bucket)


def decided(windows: Sequence[Window], hits: Sequence[Hit], now: float) -> list[WindowState]:
    return decide(windows, hits, microseconds(now))


def one(window: Window, wanted: Hit, now: float) -> WindowState:
    [state] = decided([window], [wanted], now)
    return state


@st.composite
def traffic(draw: st.DrawFn) -> tuple[float, int, list[tuple[float, int]]]:
    """A window, a limit, and hits as (time, cost), many of them at the window's own edges."""
    window_seconds = draw(st.sampled_from([0.001, 0.25, 1.0, 7.3, 60.0, 86_400.0]))
    limit = draw(st.integers(1, 6))
    edge = st.sampled_from([0.0, 0.009, 0.01, 0.011, 0.5, 0.99, 1.0, 1.005, 1.01, 1.02, 3.0])
    gap = st.one_of(edge, st.floats(0.0, 1.2))
    at = NOW + draw(st.floats(0.0, 1.0))
    hits = []
    for share, cost in draw(st.lists(st.tuples(gap, st.integers(1, 3)), max_size=60)):
        at += share * window_seconds
        hits.append((at, cost))
    return window_seconds, limit, hits


@given(traffic())
def test_no_span_of_the_window_holds_more_than_the_limit(
    made: tuple[float, int, list[tuple[float, int]]],
) -> None:
    window_seconds, limit, hits = made
    window, log = window_of(window_seconds), []
    for at, cost in hits:
        if one(window, hit(limit, window_seconds, cost=cost), at).admitted:
            log.append((microseconds(at), cost))
            begin = microseconds(at) - round(window_seconds * MICROSECONDS)
            assert sum(cost for when, cost in log if when >= begin) <= limit


@given(traffic())
def test_a_hit_is_refused_only_when_1_01_windows_hold_the_limit(
    made: tuple[float, int, list[tuple[float, int]]],
) -> None:
    window_seconds, limit, hits = made
    window, log = window_of(window_seconds), []
    for at, cost in hits:
        if one(window, hit(limit, window_seconds, cost=cost), at).admitted:
            log.append((microseconds(at), cost))
        else:
            begin = microseconds(at) - round(window_seconds * 1.01 * MICROSECONDS)
            assert sum(each for when, each in log if when > begin) + cost > limit


@given(traffic())
def test_a_refused_hit_is_admitted_after_its_wait_and_not_before(
    made: tuple[float, int, list[tuple[float, int]]],
) -> None:
    window_seconds, limit, hits = made
    window = window_of(window_seconds)
    for at, cost in hits:
        wanted = hit(limit, window_seconds, cost=cost)
        state = one(window, wanted, at)
        if state.admitted or cost > limit:
            continue
        again = at + state.retry_after_seconds
        assert one(copy.deepcopy(window), wanted, again + 2e-6).admitted
        if state.retry_after_seconds > 3e-6:
            assert not one(copy.deepcopy(window), wanted, again - 3e-6).admitted


@given(traffic())
def test_quota_comes_back_when_the_reset_says(
    made: tuple[float, int, list[tuple[float, int]]],
) -> None:
    window_seconds, limit, hits = made
    window = window_of(window_seconds)
    for at, cost in hits:
        state = one(window, hit(limit, window_seconds, cost=cost), at)
        if state.remaining < limit:
            later = copy.deepcopy(window)
            later.advance(microseconds(at + state.reset_seconds + 2e-6))
            assert limit - later.total > state.remaining


def test_remaining_counts_the_hit_itself() -> None:
    window = window_of(60)

    assert [one(window, hit(3), NOW).remaining for _ in range(4)] == [2, 1, 0, 0]


def test_an_unused_limit_has_nothing_to_reset() -> None:
    refused = hit(limit=1, cost=2)

    assert one(window_of(60), refused, NOW).reset_seconds == 0.0


def test_a_refused_hit_does_not_count() -> None:
    window = window_of(60)
    for _ in range(10):
        one(window, hit(limit=1), NOW)

    assert window.total == 1


def test_a_cost_beyond_the_limit_is_never_admitted() -> None:
    window = window_of(60)
    one(window, hit(limit=2), NOW)

    state = one(window, hit(limit=2, cost=3), NOW)

    assert not state.admitted
    assert state.retry_after_seconds == pytest.approx(60.6, abs=0.6)


def test_all_limits_admit_and_count_or_none_counts() -> None:
    wide, narrow = window_of(60), window_of(1)
    hits = [hit(5, policy="wide"), hit(1, 1.0, policy="narrow")]
    decided([wide, narrow], hits, NOW)

    states = decided([wide, narrow], hits, NOW)

    assert [state.admitted for state in states] == [True, False]
    assert (wide.total, narrow.total) == (1, 1)


def test_a_shadow_limit_that_refuses_keeps_no_other_from_counting() -> None:
    enforced, shadow = window_of(60), window_of(60)
    hits = [hit(5), hit(1, shadow=True)]
    decided([enforced, shadow], hits, NOW)

    states = decided([enforced, shadow], hits, NOW)

    assert [state.admitted for state in states] == [True, False]
    assert (enforced.total, shadow.total) == (2, 1)


def test_a_shadow_limit_does_not_count_what_another_refused() -> None:
    enforced, shadow = window_of(60), window_of(60)
    hits = [hit(1), hit(5, shadow=True)]
    decided([enforced, shadow], hits, NOW)

    decided([enforced, shadow], hits, NOW)

    assert shadow.total == 1


def test_a_lowered_limit_keeps_what_was_counted() -> None:
    window = window_of(60)
    for _ in range(5):
        one(window, hit(limit=5), NOW)

    state = one(window, hit(limit=2), NOW)

    assert (state.admitted, state.remaining) == (False, 0)


@pytest.mark.parametrize("back_seconds", [0.7, 30.0, 61.0, 3600.0])
def test_a_clock_set_back_forgets_nothing(back_seconds: float) -> None:
    window = window_of(60)
    one(window, hit(2), NOW - 20)
    one(window, hit(2), NOW)

    assert not one(window, hit(2), NOW - back_seconds).admitted


def test_a_clock_set_back_blocks_for_one_window_at_most() -> None:
    window = window_of(60)
    for _ in range(2):
        one(window, hit(2), NOW)
    one(window, hit(2), NOW - 3600)

    assert one(window, hit(2), NOW - 3600 + 60.7).remaining == 1


@given(st.lists(st.floats(-200.0, 200.0), max_size=40))
def test_a_wandering_clock_never_loses_count(steps: list[float]) -> None:
    window, at = window_of(60), NOW
    for step in steps:
        at += step
        one(window, hit(limit=3), at)
        assert window.total == sum(window._counts) <= 3


def test_a_window_is_spent_once_nothing_counts() -> None:
    window = window_of(60)
    assert window.is_spent(microseconds(NOW))
    one(window, hit(), NOW)

    assert not window.is_spent(microseconds(NOW + 60))
    assert window.is_spent(microseconds(NOW + 60.7))


def test_a_key_costs_the_same_memory_whatever_its_limit() -> None:
    window = window_of(60)
    size = len(window._counts) * window._counts.itemsize
    for step in range(5000):
        one(window, hit(limit=100_000), NOW + step * 0.01)

    assert len(window._counts) * window._counts.itemsize == size == 404
