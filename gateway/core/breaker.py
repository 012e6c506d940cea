"""When to stop asking an upstream that fails, and how many second tries it may be given.

Both are pure: the time, in seconds of any steady clock, is an argument.
"""

from __future__ import annotations

from enum import IntEnum


class BreakerState(IntEnum):
    """The number is what the metric shows."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """A circuit breaker: after `failures` in a row it opens for `open_seconds`.

    Then it is half open: one request goes through as a probe, and what becomes of it decides. With
    `failures` 0 it never opens.
    """

    def __init__(self, failures: int, open_seconds: float) -> None:
        self._threshold = failures
        self._open_seconds = open_seconds
        self._failed = 0
        self._open_until = 0.0
        self.state = BreakerState.CLOSED

    def wait(self, now: float) -> float:
        """0 when a request may go; otherwise the seconds until another try is worth it.

        Who goes while it is half open is the probe. Everyone who goes reports `succeeded`, `failed`
        or, when nothing became known, and for a probe alone, `abandoned`.
        """
        if self.state is BreakerState.CLOSED:
            return 0.0
        if self.state is BreakerState.HALF_OPEN:
            return self._open_seconds
        if now < self._open_until:
            return self._open_until - now
        self.state = BreakerState.HALF_OPEN
        return 0.0

    def succeeded(self) -> None:
        """The upstream answered; even one asked before it opened is proof."""
        self._failed = 0
        self.state = BreakerState.CLOSED

    def failed(self, now: float) -> None:
        """The upstream gave no usable answer; while it is open that tells nothing new."""
        if self.state is BreakerState.OPEN:
            return
        self._failed += 1
        if self.state is BreakerState.HALF_OPEN or 0 < self._threshold <= self._failed:
            self.state = BreakerState.OPEN
            self._open_until = now + self._open_seconds

    def abandoned(self, now: float) -> None:
        """The probe was given up before anything was known: it makes room for the next."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN
            self._open_until = now


class RetryBudget:
    """Second tries are a share of the requests, and a few each second besides.

    So that a failing upstream is not asked twice as often as one that is well. The idea is
    Finagle's: requests pay in, retries take out, and what is saved up is bounded.
    """

    def __init__(self, share: float, per_second: float) -> None:
        self._share = share
        self._per_second = per_second
        self._saved = max(per_second, 1.0 if share else 0.0)
        self._most = max(10 * per_second, 100 * share)
        self._filled_at: float | None = None

    def deposit(self) -> None:
        """A request was sent."""
        if self._saved < self._most:
            self._saved += self._share

    def withdraw(self, now: float) -> bool:
        """True when a retry may be made now; it is then spent."""
        if self._filled_at is not None:
            gained = max(0.0, now - self._filled_at) * self._per_second
            self._saved = min(self._most, self._saved + gained)
        self._filled_at = now
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
