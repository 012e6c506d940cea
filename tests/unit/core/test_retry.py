"""What follows an attempt, and what a receiver may ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.outbox import DeliveryStatus
from gateway.core.retry import (
    JITTER_SHARE,
    RETRY_AFTER_CAP_SECONDS,
    Dead,
    Delivered,
    ErrorKind,
    Outcome,
    RetryAt,
    Schedule,
    decide,
    parse_retry_after,
)

NOW = 1_000_000.0
SCHEDULE = Schedule((0.5, 2.0, 30.0))
FAILED = Outcome(0.1, ErrorKind.HTTP_STATUS, 500)
AT = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the RFC's own example


def test_success_is_delivered_whatever_the_attempt() -> None:
    assert decide(SCHEDULE, 99, Outcome(0.1, status_code=204), NOW, 0.5) == Delivered()


@pytest.mark.parametrize(("attempt", "delay"), [(1, 0.5), (2, 2.0), (3, 30.0)])
def test_failure_waits_by_the_schedule(attempt: int, delay: float) -> None:
    assert decide(SCHEDULE, attempt, FAILED, NOW, 0.0) == RetryAt(NOW + delay)


def test_schedule_of_n_delays_gives_n_retries() -> None:
    assert decide(SCHEDULE, 4, FAILED, NOW, 0.0) == Dead(DeliveryStatus.EXHAUSTED)
    assert decide(Schedule(()), 1, FAILED, NOW, 0.0) == Dead(DeliveryStatus.EXHAUSTED)


@given(jitter=st.floats(0, 1, exclude_max=True), attempt=st.integers(1, 3))
def test_jitter_only_lengthens_by_at_most_its_share(jitter: float, attempt: int) -> None:
    verdict = decide(SCHEDULE, attempt, FAILED, NOW, jitter)
    assert isinstance(verdict, RetryAt)
    delay = SCHEDULE.delays_seconds[attempt - 1]
    assert NOW + delay <= verdict.at <= NOW + delay * (1 + JITTER_SHARE) + 1e-6


def test_jitter_spreads_failures_of_the_same_moment() -> None:
    later = [decide(SCHEDULE, 3, FAILED, NOW, jitter / 100) for jitter in range(100)]
    assert len(set(later)) == 100


def test_retry_after_lengthens_a_delay_and_never_shortens_it() -> None:
    asked = Outcome(0.1, ErrorKind.HTTP_STATUS, 429, retry_after_seconds=10.0)
    assert decide(SCHEDULE, 1, asked, NOW, 0.0) == RetryAt(NOW + 10.0)
    assert decide(SCHEDULE, 3, asked, NOW, 0.0) == RetryAt(NOW + 30.0)


def test_retry_after_is_capped() -> None:
    asked = Outcome(0.1, ErrorKind.HTTP_STATUS, 503, retry_after_seconds=1e9)
    assert decide(SCHEDULE, 1, asked, NOW, 0.0) == RetryAt(NOW + RETRY_AFTER_CAP_SECONDS)


def test_retry_after_gives_no_further_attempt() -> None:
    asked = Outcome(0.1, ErrorKind.HTTP_STATUS, 503, retry_after_seconds=1.0)
    assert decide(SCHEDULE, 4, asked, NOW, 0.0) == Dead(DeliveryStatus.EXHAUSTED)


def test_blocked_address_ends_as_blocked() -> None:
    blocked = Outcome(0.0, ErrorKind.BLOCKED_ADDRESS)
    assert decide(SCHEDULE, 1, blocked, NOW, 0.0) == Dead(DeliveryStatus.BLOCKED)


def test_gone_and_permanent_failures_end_at_once() -> None:
    gone = Outcome(0.1, ErrorKind.HTTP_STATUS, 410, gone=True)
    refused = Outcome(0.1, ErrorKind.REJECTED, 200, permanent=True)
    for outcome in (gone, refused):
        assert decide(SCHEDULE, 1, outcome, NOW, 0.0) == Dead(DeliveryStatus.EXHAUSTED)


@pytest.mark.parametrize("status", [DeliveryStatus.SKIPPED, DeliveryStatus.CANCELLED])
def test_permanent_failure_ends_as_what_it_says(status: DeliveryStatus) -> None:
    skipped = Outcome(0.0, ErrorKind.REJECTED, permanent=True, final_status=status)
    assert decide(SCHEDULE, 1, skipped, NOW, 0.0) == Dead(status)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 60.0),
        ("Sun Nov  6 08:49:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:48:37 GMT", 0.0),
        ("Sat, 05 Nov 1994 08:49:37 GMT", 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms(value: str, seconds: float) -> None:
    assert parse_retry_after(value, AT - 60.0) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "1.5",
        "1e3",
        "NaN",
        "\u0661",
        "1" * 13,
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "1,2",
    ],
)
def test_anything_else_asks_for_nothing(value: str) -> None:
    assert parse_retry_after(value, AT) is None


@given(value=st.text(max_size=40))
def test_no_retry_after_raises(value: str) -> None:
    seconds = parse_retry_after(value, AT)
    assert seconds is None or seconds >= 0
