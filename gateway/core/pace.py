"""How fast the upstream may be asked: within a bound, and slower while it suffers.

The bound is strict: of any second, wherever it begins, it holds. Below it the pace follows the
upstream's answers: it falls by half when one refuses, is overdue or does not come, by less when
answers take much longer than the quickest of late, and rises little by little while all is well
(additive increase, multiplicative decrease, as in RFC 5681 section 3.1). A `Retry-After` is waited
for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MAX_HOLD_SECONDS = 60.0
TOLERANCE_SECONDS = 0.025  # what a late timer may make up for
_SLOWEST, _SLOWEST_SHARE = 1.0, 0.01  # a second, or of the bound: how else to learn it is over
_ROUNDING = 0.001  # seconds: more than floats can lose
_CUT = 0.5
_EASE = 0.8
_EASED_LEAST = 0.1  # of the bound: answers that take long are answers
_RISE_SECONDS = 10.0  # from nothing to the bound
_SLOW_TIMES, _SLOW_SECONDS = 4.0, 0.25  # both, above the quickest of late
_FORGET = 0.02  # by which the quickest of late grows, a second


class _Grants(NamedTuple):
    """Evenly spaced grants (the generic cell rate algorithm); `free_at` is when the next is."""

    free_at: float

    def wait(self, now: float) -> float:
        return max(0.0, self.free_at - TOLERANCE_SECONDS - now)

    def taken(self, now: float, rate: float) -> _Grants:
        # With the tolerance in the interval no second holds more than `rate`.
        return _Grants(max(self.free_at, now) + (1.0 + TOLERANCE_SECONDS + _ROUNDING) / rate)


class Pace:
    """The state of one upstream; `bound` is requests a second. Times are seconds of one clock."""

    def __init__(self, bound: float) -> None:
        self.rate = bound
        self._bound = bound
        self._least = min(bound, max(_SLOWEST, bound * _SLOWEST_SHARE))
        self._within_bound = _Grants(0.0)
        self._within_rate = _Grants(0.0)
        self._held_until = 0.0
        self._changed_at = 0.0  # answers to what was sent before say nothing of the pace since
        self._raised_at = 0.0
        self._quickest: float | None = None
        self._quickest_at = 0.0

    def wait(self, now: float, *, urgent: bool = False) -> float:
        """Seconds until the next request may go; an `urgent` one waits for the bound alone."""
        wait = self._within_bound.wait(now)
        if urgent:
            return wait
        return max(wait, self._within_rate.wait(now), self._held_until - now, 0.0)

    def take(self, now: float) -> None:
        """A request goes now: `wait` said 0."""
        self._within_bound = self._within_bound.taken(now, self._bound)
        self._within_rate = self._within_rate.taken(now, self.rate)

    def answered(self, sent_at: float, now: float) -> None:
        """An answer came to what was sent then."""
        seconds = max(0.0, now - sent_at)
        if self._is_slow(seconds, now):
            if sent_at >= self._changed_at + 1.0:
                least = max(self._least, self._bound * _EASED_LEAST)
                self._slow_down(max(min(self.rate, least), self.rate * _EASE), now)
        elif self.rate < self._bound and sent_at >= self._changed_at:
            passed = min(1.0, max(0.0, now - max(self._raised_at, self._changed_at)))
            self.rate = min(self._bound, self.rate + self._bound * passed / _RISE_SECONDS)
            self._raised_at = now

    def refused(self, sent_at: float, now: float, retry_after_seconds: float = 0.0) -> bool:
        """What was sent then was refused, or has no answer; True when the pace falls for it."""
        until = now + min(retry_after_seconds, MAX_HOLD_SECONDS)
        self._held_until = max(self._held_until, until)
        if sent_at < self._changed_at:
            return False  # sent at the pace before: it is slower already
        self._slow_down(max(self._least, self.rate * _CUT), now)
        return True

    def _slow_down(self, rate: float, now: float) -> None:
        self.rate = rate
        self._changed_at = self._raised_at = now

    def _is_slow(self, seconds: float, now: float) -> bool:
        quickest = self._quickest
        if quickest is not None:
            passed = min(600.0, max(0.0, now - self._quickest_at))
            quickest *= math.pow(1.0 + _FORGET, passed)
        if quickest is None or seconds <= quickest:
            self._quickest, self._quickest_at = seconds, now
            return False
        return seconds > quickest * _SLOW_TIMES and seconds > quickest + _SLOW_SECONDS
