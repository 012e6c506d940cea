"""A worker that dies is started again: at once, then ever later, in the end not at all."""

from __future__ import annotations

from gateway.core.restart import MAX_DEATHS, STEADY_SECONDS, Restarts


def delays(*served_seconds: float) -> list[float | None]:
    found, restarts = [], Restarts()
    for served in served_seconds:
        restarts = restarts.after(served)
        found.append(restarts.delay_seconds)
    return found


def test_the_first_death_costs_no_time() -> None:
    assert delays(0.0) == [0.0]


def test_each_further_death_in_a_row_doubles_the_delay_up_to_half_a_minute() -> None:
    assert delays(*[1.0] * 9) == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_too_many_deaths_in_a_row_are_the_end() -> None:
    assert delays(*[0.0] * (MAX_DEATHS + 1))[-2:] == [30.0, None]


def test_one_that_served_for_long_begins_anew() -> None:
    assert delays(0.0, 0.0, 0.0, STEADY_SECONDS, 0.0) == [0.0, 0.5, 1.0, 0.0, 0.5]
