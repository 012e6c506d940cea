"""Claims due messages, sends each through its sink, decides and settles: at least once, never lost.

A claim is a lease that outlasts the attempt; whoever dies or hangs while holding one loses it, and
the message is due again. Each sink has a lane of its own, and within a lane each destination its
share, so that a slow, a failing or a far-behind one delays nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from gateway.core.error import StoreUnavailable
from gateway.core.outbox import Claim, Message
from gateway.delivery.attempt import Courier
from gateway.delivery.base import Sink
from gateway.delivery.share import Shares
from gateway.store.outbox import Outbox
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer

LEASE_MARGIN_SECONDS = 15.0
IDLE_SECONDS = 5.0  # how long another replica's new message may wait unseen
HELD_SECONDS = 0.25  # between looks at what is due but waits for its turn
SETTLE_SECONDS = 5.0  # at a stop, for verdicts on attempts already made
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 5.0


class Dispatcher:
    """Delivers what is in the outbox, between `start` and `stop`.

    `now` gives epoch seconds, `jitter` a number in [0, 1).
    """

    def __init__(
        self,
        outbox: Outbox,
        sinks: Sequence[Sink],
        *,
        now: Callable[[], float],
        jitter: Callable[[], float],
        metrics: Metrics,
        lease_margin_seconds: float = LEASE_MARGIN_SECONDS,
        tracer: Tracer | None = None,
    ) -> None:
        self._lanes = [
            Lane(
                outbox,
                sink,
                now=now,
                jitter=jitter,
                metrics=metrics,
                lease_margin_seconds=lease_margin_seconds,
                tracer=tracer,
            )
            for sink in sinks
        ]

    @property
    def in_flight(self) -> int:
        """How many attempts are under way."""
        return sum(lane.in_flight for lane in self._lanes)

    async def start(self) -> None:
        """Begin to deliver."""
        for lane in self._lanes:
            lane.start()

    def wake(self) -> None:
        """Look now: messages were added."""
        for lane in self._lanes:
            lane.wake()

    async def stop(self, deadline_seconds: float) -> None:
        """Claim no more, give attempts under way `deadline_seconds` to end, then abandon them.

        What is abandoned is due again when its lease ends. Harmless when nothing was started.
        """
        await asyncio.gather(*(lane.stop(deadline_seconds) for lane in self._lanes))


class Lane:
    """Delivers the messages of one sink."""

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        *,
        now: Callable[[], float],
        jitter: Callable[[], float],
        metrics: Metrics,
        lease_margin_seconds: float,
        tracer: Tracer | None = None,
    ) -> None:
        self._outbox = outbox
        self._lease_margin_seconds = lease_margin_seconds
        self._sink = sink
        self._now = now
        self._jitter = jitter
        self._metrics = metrics
        self._log = get_logger("delivery")
        self._courier = Courier(
            outbox, sink, now=now, jitter=jitter, metrics=metrics, tracer=tracer
        )
        self._loop: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[bool]] = set()
        self._shares = Shares(sink.concurrency, sink.per_destination)
        self._awake = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many attempts are under way."""
        return len(self._tasks)

    def start(self) -> None:
        """Begin to deliver."""
        if self._loop is None:
            self._stopping.clear()
            self._courier.open()
            self._loop = asyncio.create_task(self._run(), name=f"lane-{self._sink.name}")

    def wake(self) -> None:
        """Look now."""
        self._awake.set()

    async def stop(self, deadline_seconds: float) -> None:
        """See `Dispatcher.stop`."""
        self._stopping.set()
        self._awake.set()
        self._courier.close()
        loop, self._loop = self._loop, None
        until = asyncio.get_running_loop().time() + deadline_seconds
        if loop is not None:
            # It ends by itself after the claim it may be waiting for, whose messages it delivers.
            await asyncio.wait({loop}, timeout=deadline_seconds)
            loop.cancel()
            await asyncio.wait({loop})
        await self._drain(until - asyncio.get_running_loop().time())
        self._courier.abandon()
        await self._drain(SETTLE_SECONDS)
        for task in self._tasks:
            task.cancel()
        await self._drain(None)

    async def _drain(self, timeout_seconds: float | None) -> None:
        if self._tasks:
            timeout = None if timeout_seconds is None else max(0.0, timeout_seconds)
            await asyncio.wait(set(self._tasks), timeout=timeout)

    async def _run(self) -> None:
        failures, pause = 0, 0.0
        while not self._stopping.is_set():
            self._awake.clear()
            try:
                pause = await self._turn()
                failures = 0
            except StoreUnavailable as error:
                failures += 1
                self._metrics.store_errors_total.labels("outbox").inc()
                self._log.warning("outbox_unavailable", sink=self._sink.name, error=error.detail)
            except Exception:  # noqa: BLE001 - a lane that ends delivers nothing until a restart
                failures += 1
                self._log.exception("lane_failed", sink=self._sink.name)
            if failures:
                await _wait(self._stopping, self._backoff(failures))
            elif pause > 0:
                await _wait(self._awake, pause)

    async def _turn(self) -> float:
        """Claim what is due; how long to wait for more, in seconds."""
        due_at = await self._outbox.next_due_at(self._sink.name)
        if due_at is None:
            return IDLE_SECONDS
        if (ahead := due_at - self._now()) > 0:
            return min(ahead, IDLE_SECONDS)
        # Nothing claimed: it waits for its destination's share, for an earlier message, or for us.
        return 0.0 if await self._claim() else HELD_SECONDS

    async def _claim(self) -> int:
        """Claim as much as there is room for; how many messages that was.

        A claim hands out up to its share of every destination. So one of a whole share leaves out
        every destination with less room than that, and smaller ones follow for those. Each turn
        makes every size of claim, so that a destination with something under way starves no more
        than one without.
        """
        total = 0
        for share in self._shares.sizes:
            if (room := self._room) <= 0:
                break
            was_idle = self._shares.is_idle
            claimed = await self._claim_of(share)
            if claimed < room and self._shares.begin_round():
                claimed += await self._claim_of(share)
            total += claimed
            if claimed < room and was_idle:
                break
        return total

    @property
    def _room(self) -> int:
        return 0 if self._stopping.is_set() else self._sink.concurrency - len(self._tasks)

    async def _claim_of(self, share: int) -> int:
        """Claim from everybody as far as those that fail have room, then from the others alone."""
        limit = min(self._room, self._shares.failing_room)
        claimed = await self._claim_some(limit, share, self._shares.passed_over(share))
        if self._shares.are_failing:
            busy = self._shares.passed_over(share, failing=True)
            claimed += await self._claim_some(self._room, share, busy)
        return claimed

    async def _claim_some(self, limit: int, share: int, busy: Sequence[str]) -> int:
        if limit <= 0:
            return 0
        lease_seconds = self._sink.deadline_seconds + self._lease_margin_seconds
        claims = await self._outbox.claim(
            self._sink.name, limit, self._now(), lease_seconds, share=share, busy=busy
        )
        for claim in claims:
            self._begin(claim)
        if len(claims) == limit:
            self._shares.serve(claim.item.destination for claim in claims)
        return len(claims)

    def _begin(self, claim: Claim[Message]) -> None:
        destination = claim.item.destination
        self._shares.begin(destination)
        task = asyncio.create_task(self._courier.deliver(claim), name=claim.item.id)
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, destination))

    def _ended(self, destination: str, task: asyncio.Task[bool]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        self._shares.end(
            destination, failed=not task.cancelled() and error is None and not task.result()
        )
        self._awake.set()
        if error is not None:
            self._log.error("delivery_crashed", delivery_id=task.get_name(), exc_info=error)

    def _backoff(self, failures: int) -> float:
        delay = min(BACKOFF_FIRST_SECONDS * 2.0 ** min(failures - 1, 10), BACKOFF_MAX_SECONDS)
        return delay * (1.0 + self._jitter())


async def _wait(event: asyncio.Event, timeout_seconds: float) -> None:
    """Return when the event is set or the time is up, whichever is first."""
    try:
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        return
