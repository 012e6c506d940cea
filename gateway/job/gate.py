"""Where whatever the gateway asks of the upstream by itself waits for its turn.

One state of `core.pace` bounds and adapts all of it: polls, streams, lists and details. Clients'
own requests are not its business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.core.error import UpstreamError, UpstreamMalformed
from gateway.core.pace import Pace
from gateway.core.retry import parse_retry_after
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

_REFUSALS = frozenset({429, 503})


class Gate:
    """Lets requests through at a pace, first come, first served; `now` is epoch seconds."""

    def __init__(
        self,
        pace: Pace,
        metrics: Metrics,
        now: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pace = pace
        self._now = now
        self._clock = clock
        self._log = get_logger("watcher")
        self._lines = {urgent: asyncio.Lock() for urgent in (False, True)}
        self._backoffs = metrics.watch_backoffs_total
        metrics.watch_pace.set_function(lambda: pace.rate)

    async def enter(self, *, urgent: bool = False) -> float:
        """Wait for the turn; when it came, to be handed in with what became of the request.

        An `urgent` request keeps to the bound, but waits neither for others nor for an upstream
        that asked for patience: what it asks for is asked only once.
        """
        async with self._lines[urgent]:
            now = self._clock()
            while wait := self._pace.wait(now, urgent=urgent):
                await asyncio.sleep(wait)
                now = self._clock()
            self._pace.take(now)
            return now

    def answered(self, sent_at: float, status: int, retry_after: str | None = None) -> None:
        """The upstream answered so; `retry_after` is the field's value."""
        if status not in _REFUSALS:
            self._pace.answered(sent_at, self._clock())
            return
        wait = None if retry_after is None else parse_retry_after(retry_after, self._now())
        self._refused(sent_at, str(status), wait or 0.0)

    def failed(self, sent_at: float, error: UpstreamError) -> None:
        """The upstream gave no answer; one that makes no sense is one all the same."""
        if isinstance(error, UpstreamMalformed):
            self._pace.answered(sent_at, self._clock())
        else:
            self._refused(sent_at, error.reason, 0.0)

    def _refused(self, sent_at: float, reason: str, wait: float) -> None:
        if self._pace.refused(sent_at, self._clock(), wait):
            self._backoffs.labels(reason).inc()
            self._log.info(
                "watch_slows_down", reason=reason, per_second=self._pace.rate, wait_seconds=wait
            )
