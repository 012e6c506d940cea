"""The upstream's list tells of many jobs at once who has moved: the others need no poll.

A list may show less than a status, so it is no observation: whoever it shows changed is polled at
once, and whoever it shows as it was is spared for a while. One that it does not show is polled as
ever, for it may show a part of them only.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.core.error import UpstreamError
from gateway.job.observer import Observer
from gateway.settings.job import Watch
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

_SHARE = 20  # a list is asked for in at most one part of so many of the time
_SPARED_PAUSES = 2.5  # so that one list may fail before the polls come
_SLOWEST_PAUSES = 8.0  # of the longest pause between polls, for a list that helps little
_AT_ONCE = 500  # entries that are compared before others get their turn


class Polls(Protocol):
    """The jobs that are polled."""

    def __len__(self) -> int: ...

    def __contains__(self, job_id: object) -> bool: ...

    def hasten(self, job_id: str) -> None:
        """It has moved."""
        ...

    def spare(self, job_id: str, seconds: float) -> bool:
        """It has not; False when it is asked of all the same."""
        ...


class Survey:
    """Asks for the list while enough jobs are polled."""

    def __init__(self, observer: Observer, polls: Polls, settings: Watch, metrics: Metrics) -> None:
        self._observer = observer
        self._polls = polls
        self._settings = settings
        self._spared = metrics.watch_polls_spared_total
        self._log = get_logger("watcher")
        self._seen: dict[str, int] = {}
        self.pause_seconds = settings.poll.min

    async def run(self) -> None:
        """Ask until cancelled; returns at once where the list is not to be asked for."""
        least = self._settings.survey_from
        if least is None:
            return
        while True:
            await asyncio.sleep(self.pause_seconds)
            if len(self._polls) < least:
                self._seen.clear()
                self.pause_seconds = self._settings.poll.min
                continue
            try:
                await self.look()
            except UpstreamError as error:
                self._log.info("survey_failed", reason=error.reason)
                self._slow_down()

    async def look(self) -> None:
        """Ask once. Raises `UpstreamError`."""
        clock = asyncio.get_running_loop().time
        shown, took = await self._observer.shown()
        known = 0
        spared = 0
        seen: dict[str, int] = {}
        worked_at = clock()
        for number, (job_id, print_) in enumerate(shown, start=1):
            if job_id in self._polls:
                seen[job_id] = print_
                before = self._seen.get(job_id)
                if before is not None:
                    known += 1
                    spared += self._compare(job_id, is_same=before == print_)
            if number % _AT_ONCE == 0:
                took += clock() - worked_at
                await asyncio.sleep(0)
                worked_at = clock()
        took += clock() - worked_at
        helped = not self._seen or (known > 0 and 2 * spared >= known)
        self._seen = seen
        self._spared.inc(spared)
        if helped and seen:
            self.pause_seconds = max(self._settings.poll.min, _SHARE * took)
        else:
            self._slow_down()

    def _compare(self, job_id: str, *, is_same: bool) -> bool:
        if is_same:
            return self._polls.spare(job_id, _SPARED_PAUSES * self.pause_seconds)
        self._polls.hasten(job_id)
        return False

    def _slow_down(self) -> None:
        slowest = _SLOWEST_PAUSES * self._settings.poll.max
        self.pause_seconds = min(slowest, 2 * self.pause_seconds)
