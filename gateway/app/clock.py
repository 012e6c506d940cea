"""This host's time without its jumps.

A wall clock is set: by an administrator, by NTP after a long absence, by a hypervisor. Jobs must
not run out of their time by that, nor what was seen after it count as older than what was before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.telemetry.log import get_logger

CORRECT_SECONDS = 1.0
_SLEW = 0.1  # of the time that has passed; so much longer or shorter durations are meanwhile
_JUMP_SECONDS = 1.0  # less is no jump, but a clock that is being corrected
_ABSURD_SECONDS = 86_400.0  # a host that has only now learnt which day it is


class SteadyClock:
    """`now` gives epoch seconds that go by the monotonic clock, and never back.

    They follow the wall clock by at most a tenth of the time that passes, so that durations hold
    across a jump of it, and times do again after a while; a jump of more than a day is followed at
    once. What must be the time as all others know it, as a signature's, is not taken from here.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._corrected_at = steady()
        self._offset_seconds = wall() - self._corrected_at
        self._is_off = False
        self._log = get_logger("app")

    def now(self) -> float:
        """Epoch seconds."""
        return self._steady() + self._offset_seconds

    def correct(self) -> float:
        """Follow the wall clock; by how many seconds it is still ahead (or behind, if negative)."""
        at = self._steady()
        error = self._wall() - (at + self._offset_seconds)
        passed, self._corrected_at = at - self._corrected_at, at
        self._note(error)
        most = abs(error) if abs(error) > _ABSURD_SECONDS else _SLEW * passed
        step = max(-most, min(error, most))
        self._offset_seconds += step
        return error - step

    async def run(self) -> None:
        """Follow it until cancelled."""
        while True:
            await asyncio.sleep(CORRECT_SECONDS)
            self.correct()

    def _note(self, error: float) -> None:
        """Log the beginning and the end of a difference that no correction makes."""
        was_off, self._is_off = self._is_off, abs(error) > _JUMP_SECONDS
        if self._is_off and not was_off:
            self._log.warning("clock_jumped", seconds=round(error, 3))
        elif was_off and not self._is_off:
            self._log.info("clock_followed")
