"""A time by which something must have happened, moved on far more often than it is reached."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    """Calls `expired` once its time is over.

    To move it on costs no timer of the loop: the one that is set looks, when it fires, whether the
    time has come, and waits on if it has not.
    """

    __slots__ = ("_at", "_expired", "_loop", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def set(self, seconds: float) -> None:
        """Expire in so many seconds, whatever was said before."""
        at = self._at = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._schedule(at)

    def suspend(self) -> None:
        """Not expire, until set again."""
        self._at = math.inf

    def close(self) -> None:
        """Never expire again."""
        self._at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, at: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() >= self._at:
            self._at = math.inf
            self._expired()
        elif self._at < math.inf:
            self._schedule(self._at)
