"""The store is held against the upstream's list at the start, and after Redis lost its data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.error import StoreUnavailable, UpstreamError
from gateway.job.observer import Observer
from gateway.job.tracker import Tracker
from gateway.settings.job import Poll
from gateway.telemetry.log import get_logger


class Reconciliation:
    """What ended while nobody watched is recorded, and strangers are adopted."""

    def __init__(
        self,
        tracker: Tracker,
        observer: Observer,
        *,
        poll: Poll,
        adopt_after_seconds: float,
        done: Callable[[], None],
    ) -> None:
        self._tracker = tracker
        self._observer = observer
        self._poll = poll
        self._adopt_after_seconds = adopt_after_seconds
        self._done = done
        self._log = get_logger("watcher")

    async def run(self) -> None:
        """Once the list can be had.

        Not at once where replicas share the upstream: a job in its list may be one that another is
        about to record, with its owner.
        """
        delay = self._poll.min
        while True:
            try:
                listed = await self._observer.listed()
                await asyncio.sleep(self._adopt_after_seconds)
                for observation in listed:
                    await self._tracker.observe(observation, "list")
            except (UpstreamError, StoreUnavailable) as error:
                self._log.info("reconcile_postponed", error=error.detail)
                await asyncio.sleep(delay)
                delay = min(self._poll.max, delay * 2)
                continue
            self._done()
            return
