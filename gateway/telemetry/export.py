"""Ended spans on their way out: a bounded queue, and what empties it in the background.

A collector that is away, slow or refuses costs spans, which are counted, and never time: nobody
waits for it but the task here.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.trace import Span
from gateway.settings.telemetry import Tracing
from gateway.telemetry.log import get_logger, mask
from gateway.telemetry.metric import Metrics

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
WAIT_MAX_SECONDS = 300.0  # whatever a collector asks for
QUEUE_FULL, REFUSED, SHUTDOWN, INTERNAL = "queue_full", "refused", "shutdown", "internal"


class CollectorError(Exception):
    """The collector took no spans; `str()` says why, in words for an operator."""


class CollectorRefused(CollectorError):
    """It will not take these however often they are sent."""


class CollectorAway(CollectorError):
    """It may take them later: in `wait_seconds`, where it says so."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, slots=True)
class Rejection:
    """How many of the spans sent the collector dropped, and why it says it did."""

    count: int = 0
    reason: str = ""


class Collector(Protocol):
    """Where spans go."""

    async def send(self, spans: Sequence[Span]) -> Rejection:
        """Send spans. Raises CollectorError; takes a bounded time."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


@dataclass(frozen=True, slots=True)
class ExportState:
    """For health: what is wrong now and since when (epoch seconds), and what it has cost."""

    error: str | None
    since: float | None
    waiting: int
    dropped: int
    last_dropped_at: float | None


class Exporter:
    """Takes spans at once and sends them in batches, between `start` and `stop`.

    Of more than `tracing.queue` waiting the oldest go. `told` is called when the collector begins
    to fail and when it is well again.
    """

    def __init__(
        self,
        collector: Collector,
        settings: Tracing,
        metrics: Metrics,
        now: Callable[[], float],
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._collector = collector
        self._settings = settings
        self._now = now
        self._told = told
        self._waiting: deque[Span] = deque()
        self._some, self._many, self._closing = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sent_total = metrics.trace_spans_exported_total
        self._dropped_total = metrics.trace_spans_dropped_total
        self._error: str | None = None
        self._since: float | None = None
        self._dropped = 0
        self._last_dropped_at: float | None = None
        self._log = get_logger("tracing")

    @property
    def state(self) -> ExportState:
        """As it is now."""
        return ExportState(
            self._error, self._since, len(self._waiting), self._dropped, self._last_dropped_at
        )

    def record(self, span: Span) -> None:
        """Take an ended span; never waits."""
        waiting = self._waiting
        if len(waiting) >= self._settings.queue:
            waiting.popleft()
            self._drop(QUEUE_FULL, 1)
        waiting.append(span)
        self._some.set()
        if len(waiting) >= self._settings.batch:
            self._many.set()

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name="trace-export")

    async def stop(self, deadline_seconds: float) -> None:
        """Send what waits, each batch once and all within the deadline; the rest is dropped."""
        self._closing.set()
        self._some.set()
        self._many.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=max(0.0, deadline_seconds))
            self._task.cancel()
            await asyncio.wait({self._task})
        self._drop(SHUTDOWN, len(self._waiting))
        self._waiting.clear()
        await self._collector.close()

    async def _run(self) -> None:
        while not self._closing.is_set():
            await self._some.wait()
            await _passed(self._many, self._settings.interval)  # more may join them
            await self._send_batch()
            self._note_rest()
        while self._waiting and await self._send_batch():
            pass

    def _note_rest(self) -> None:
        if self._closing.is_set():
            return
        if len(self._waiting) < self._settings.batch:
            self._many.clear()
        if not self._waiting:
            self._some.clear()

    async def _send_batch(self) -> bool:
        """Send the oldest; until they are taken, refused, or the process ends. False: not taken."""
        count = min(len(self._waiting), self._settings.batch)
        batch = [self._waiting.popleft() for _ in range(count)]
        failures = 0
        try:
            while batch:
                wait_seconds = await self._try(batch, failures)
                if wait_seconds is None:
                    return True
                failures += 1
                if await _passed(self._closing, wait_seconds):
                    break
        except asyncio.CancelledError:
            self._drop(SHUTDOWN, len(batch))
            raise
        self._drop(SHUTDOWN, len(batch))
        return not batch

    async def _try(self, batch: Sequence[Span], failures: int) -> float | None:
        """Send once; None when the batch is done with, else how long to wait, in seconds."""
        try:
            rejection = await self._collector.send(batch)
        except CollectorAway as error:
            self._note(str(error))
            if error.wait_seconds is not None:
                return min(error.wait_seconds, WAIT_MAX_SECONDS)
            backoff = min(BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 10), BACKOFF_MAX_SECONDS)
            return backoff * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        except CollectorRefused as error:
            self._note(str(error))
            self._drop(REFUSED, len(batch))
            return None
        except Exception as error:  # noqa: BLE001 - an exporter that ends exports nothing any more
            self._log.exception("export_failed")
            self._note(f"internal error: {type(error).__name__}")
            self._drop(INTERNAL, len(batch))
            return None
        self._sent_total.inc(len(batch) - rejection.count)
        self._drop(REFUSED, rejection.count)
        self._note(f"rejected spans: {rejection.reason}" if rejection.count else None)
        return None

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self._dropped += count
            self._last_dropped_at = self._now()
            self._dropped_total.labels(reason).inc(count)

    def _note(self, error: str | None) -> None:
        before, self._error = self._error, None if error is None else mask(error)
        if (before is None) is (error is None):
            return
        if error is None:
            self._since = None
            self._log.info("collector_answers_again", dropped=self._dropped)
        else:
            self._since = self._now()
            self._log.warning("collector_failing", error=error)
        if not self._closing.is_set():  # nobody looks at health any more
            self._told()


async def _passed(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, no longer than this; True when it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
