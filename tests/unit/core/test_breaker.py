"""The breaker opens, probes and closes; the budget bounds second tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.breaker import Breaker, BreakerState, RetryBudget

FAILURES, OPEN_SECONDS = 3, 10.0


class BreakerMachine(RuleBasedStateMachine):
    """Whatever happens, the breaker is never stuck and never lets a crowd through to a dead end."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(FAILURES, OPEN_SECONDS)
        self.now = 0.0
        self.under_way = 0
        self.failed_in_a_row = 0
        self.has_probe = False

    @rule(seconds=st.integers(0, 15))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        before = self.breaker.state
        if self.breaker.wait(self.now) == 0:
            self.under_way += 1
            assert before is not BreakerState.HALF_OPEN
            self.has_probe = self.has_probe or before is BreakerState.OPEN
        else:
            assert before is not BreakerState.CLOSED

    @precondition(lambda self: self.under_way)
    @rule()
    def succeed(self) -> None:
        self.under_way -= 1
        self.failed_in_a_row = 0
        self.has_probe = False
        self.breaker.succeeded()
        assert self.breaker.state is BreakerState.CLOSED

    @precondition(lambda self: self.under_way)
    @rule()
    def fail(self) -> None:
        self.under_way -= 1
        self.failed_in_a_row += 1
        self.has_probe = False
        self.breaker.failed(self.now)
        if self.failed_in_a_row >= FAILURES:
            assert self.breaker.state is BreakerState.OPEN

    @precondition(lambda self: self.has_probe)
    @rule()
    def abandon(self) -> None:
        self.under_way -= 1
        self.has_probe = False
        self.breaker.abandoned(self.now)

    @invariant()
    def nobody_waits_longer_than_it_is_open(self) -> None:
        if self.breaker.state is BreakerState.OPEN:
            assert self.breaker._open_until - self.now <= OPEN_SECONDS


TestBreakerMachine = BreakerMachine.TestCase


def opened() -> Breaker:
    breaker = Breaker(FAILURES, OPEN_SECONDS)
    for _ in range(FAILURES):
        breaker.failed(0.0)
    return breaker


def test_an_open_breaker_says_how_long_to_wait() -> None:
    assert opened().wait(4.0) == 6.0


def test_one_probe_goes_through_and_the_rest_waits_for_it() -> None:
    breaker = opened()

    assert [breaker.wait(10.0), breaker.wait(10.0)] == [0.0, OPEN_SECONDS]


def test_probe_that_fails_opens_it_again() -> None:
    breaker = opened()
    breaker.wait(10.0)
    breaker.failed(11.0)

    assert breaker.wait(12.0) == 9.0


def test_probe_that_was_given_up_makes_room_for_the_next() -> None:
    breaker = opened()
    breaker.wait(10.0)
    breaker.abandoned(11.0)

    assert breaker.wait(11.0) == 0.0


def test_failures_with_a_success_between_them_do_not_add_up() -> None:
    breaker = Breaker(2, OPEN_SECONDS)
    for _ in range(5):
        breaker.failed(0.0)
        breaker.succeeded()

    assert breaker.state is BreakerState.CLOSED


def test_a_threshold_of_none_never_opens() -> None:
    breaker = Breaker(0, OPEN_SECONDS)
    for _ in range(100):
        breaker.failed(0.0)

    assert breaker.wait(0.0) == 0.0


@given(requests=st.integers(0, 500), seconds=st.integers(0, 60))
def test_second_tries_are_a_share_of_the_requests_and_some_each_second(
    requests: int, seconds: int
) -> None:
    budget = RetryBudget(share=0.2, per_second=3.0)
    budget.withdraw(0.0)
    for _ in range(requests):
        budget.deposit()
    granted = sum(budget.withdraw(float(seconds)) for _ in range(1000))

    assert granted <= 2 + 0.2 * requests + 3 * seconds + 1
    assert granted >= min(30, int(0.2 * requests))


@pytest.mark.parametrize("now", [0.0, 100.0])
def test_a_budget_of_none_grants_none(now: float) -> None:
    budget = RetryBudget(share=0.0, per_second=0.0)
    budget.deposit()

    assert not budget.withdraw(now)
