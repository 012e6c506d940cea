"""Watches unfinished jobs: claims them, observes the upstream, until they end.

Each claimed job is one task: it follows the upstream's stream where there is one, else polls, fast
while the job moves and slow while it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

from gateway.core.contract import STREAM, Contract
from gateway.core.error import StoreUnavailable, UpstreamError, UpstreamTimeout
from gateway.core.job import Job, Observation
from gateway.core.outbox import Claim
from gateway.core.sse import EventParser, ServerEvent
from gateway.job.broadcast import Broadcasts, Following
from gateway.job.observer import Observer
from gateway.job.tracker import Tracker
from gateway.settings.model import Watch
from gateway.store.job import JobStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import Exchange

MAX_WATCHED = 20_000
_CLAIM_SECONDS = 0.5
_USELESS_STREAMS = 3
_FAREWELL_SECONDS = 5.0  # for what a stream says after the job's end

Seen = tuple[ServerEvent, Observation | None]  # an event, and what it shows of the job


class Watcher:
    """Claims due jobs and watches each in a task of its own."""

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        jobs: JobStore,
        tracker: Tracker,
        observer: Observer,
        broadcasts: Broadcasts,
        contract: Contract,
        settings: Watch,
        upstream: str | None,
        replicas: Callable[[], int] = lambda: 1,
        adopt_after_seconds: float = 0.0,
        metrics: Metrics,
        now: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._store = jobs
        self._tracker = tracker
        self._observer = observer
        self._broadcasts = broadcasts
        self._contract = contract
        self._settings = settings
        self._upstream = upstream
        self._replicas = replicas
        self._adopt_after_seconds = adopt_after_seconds
        self._metrics = metrics
        self._now = now
        self._jitter = jitter
        self._log = get_logger("watcher")
        self._wake = asyncio.Event()
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._streams = 0

    def wake(self) -> None:
        """Look for due jobs now: one was just created."""
        self._wake.set()

    async def run(self) -> None:
        """Claim and watch until cancelled; then every claim is given back."""
        reconciling = asyncio.create_task(self.reconcile())
        try:
            while True:
                await self._claim()
                with suppress(TimeoutError):
                    # Not wait_for: until Python 3.12 it loses a cancellation that meets the wake.
                    async with asyncio.timeout(_CLAIM_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            tasks = [reconciling, *self._watches.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _claim(self) -> None:
        free = min(MAX_WATCHED, self._share()) - len(self._watches)
        if free <= 0:
            return
        try:
            claims = await self._store.claim_due(
                self._upstream, free, self._now(), self._settings.lease
            )
        except StoreUnavailable as error:
            self._log.warning("claim_failed", error=error.detail)
            return
        for claim in claims:
            job_id = claim.item.id
            old = self._watches.get(job_id)
            if old is not None:
                old.cancel()  # its lease ran out unnoticed: the new claim takes its place
            self._watches[job_id] = asyncio.create_task(self._watch(claim))

    def _share(self) -> int:
        """How many jobs to watch; what a replica that is gone leaves is taken up little by little.

        The others have their equal parts, so one that is first does not watch them all.
        """
        replicas = self._replicas()
        if replicas <= 1:
            return MAX_WATCHED
        equal = -(-self._tracker.active_count // replicas)
        return max(equal, len(self._watches)) + 1

    async def _watch(self, claim: Claim[Job]) -> None:
        job_id = claim.item.id
        watching = asyncio.create_task(self._observe_until_ended(job_id))
        keeping = asyncio.create_task(self._keep(claim))
        try:
            await asyncio.wait({watching, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and (error := watching.exception()) is not None:
                self._log.error("watch_failed", job_id=job_id, exc_info=error)
        finally:
            for task in (watching, keeping):
                task.cancel()
            await asyncio.gather(watching, keeping, return_exceptions=True)
            if self._watches.get(job_id) is asyncio.current_task():
                del self._watches[job_id]
            with suppress(StoreUnavailable):  # the lease then runs out by itself
                await self._store.release(claim, self._now() + self._settings.poll.min)

    async def _keep(self, claim: Claim[Job]) -> None:
        """Renew the lease; return when it is lost to another replica."""
        while True:
            await asyncio.sleep(self._settings.lease / 3)
            with suppress(StoreUnavailable):  # tried again; past the lease the fence decides
                if not await self._store.renew([claim], self._now() + self._settings.lease):
                    self._log.warning("lease_lost", job_id=claim.item.id)
                    return

    async def _observe_until_ended(self, job_id: str) -> None:
        poll = self._settings.poll
        delay = poll.min
        # After a few streams that say nothing the upstream is taken not to stream, and polled.
        tries = _USELESS_STREAMS if self._streams_offered() else 0
        while (job := await self._alive(job_id)) is not None:
            if tries and self._streams < self._settings.max_streams:
                tries = _USELESS_STREAMS if await self._follow(job) else tries - 1
            moved = await self._poll(job_id)
            job = self._tracker.active(job_id)
            if job is None:
                return
            delay = poll.min if moved else min(poll.max, delay * 1.5)
            await self._rest(self._pause(job, delay))

    def _streams_offered(self) -> bool:
        return self._settings.source != "poll" and self._contract.has(STREAM)

    async def _alive(self, job_id: str) -> Job | None:
        """The job if it has not ended, time-outs applied."""
        try:
            job = await self._tracker.expire(job_id)
        except StoreUnavailable as error:
            self._log.warning("expiry_failed", job_id=job_id, error=error.detail)
            return self._tracker.active(job_id)
        return None if job is None or job.state.terminal else job

    async def _poll(self, job_id: str) -> bool:
        """Ask once; True when the job moved."""
        before = self._tracker.active(job_id)
        if before is None:
            return False
        try:
            observation = await self._observer.status(before)
            if observation is None:
                return False
            after = await self._tracker.observe(observation, "poll")
        except UpstreamError as error:
            self._log.info("poll_failed", job_id=job_id, reason=error.reason)
            return False
        except StoreUnavailable as error:
            self._log.warning("poll_not_recorded", job_id=job_id, error=error.detail)
            return False
        return after is not None and after.sequence != before.sequence

    async def _follow(self, job: Job) -> bool:
        """Follow the job's stream until it ends; False when it said nothing usable."""
        self._streams += 1
        useful = False
        try:
            async with await self._observer.stream(job) as exchange:
                if exchange.status != 200:
                    return False
                kind = exchange.headers.get("Content-Type")
                with self._broadcasts.follow(job.id, kind) as following:
                    async with aclosing(self._events(exchange, job.id)) as events:
                        useful = await self._tell(events, job.id, following)
        except UpstreamError as error:
            self._log.info("stream_broken", job_id=job.id, reason=error.reason)
            # One that broke may say more when it is taken up again; one that is dumb will not.
            return useful or not isinstance(error, UpstreamTimeout)
        finally:
            self._streams -= 1
        return useful

    async def _tell(
        self, events: AsyncGenerator[Seen, None], job_id: str, following: Following
    ) -> bool:
        """Record what the events show, and tell them on; False when that was nothing."""
        useful = False
        async for event, shown in events:
            job = None if shown is None else await self._take(shown)
            await following.tell(event, shown, job)
            if shown is not None:
                useful = True
                if await self._alive(job_id) is None:
                    await _hear_out(events, following)
                    return True
        following.is_whole = True
        return useful

    async def _take(self, observation: Observation) -> Job | None:
        try:
            return await self._tracker.observe(observation, "stream")
        except StoreUnavailable as error:
            self._log.warning("event_not_recorded", job_id=observation.job_id, error=error.detail)
            return None

    async def _events(self, exchange: Exchange, job_id: str) -> AsyncGenerator[Seen, None]:
        """What the stream says; while that shows nothing of the job it is polled beside it.

        A stream may also be silent by heartbeats. Ends with the stream, or with the job.
        """
        clock, patience = asyncio.get_running_loop().time, self._settings.poll.max
        async with aclosing(self._read(exchange, job_id)) as read:
            coming: asyncio.Task[Seen] | None = None
            poll_at = clock() + patience
            try:
                while True:
                    coming = coming or asyncio.ensure_future(anext(read))
                    done, _ = await asyncio.wait({coming}, timeout=max(0.0, poll_at - clock()))
                    if done:
                        finished, coming = coming, None
                        try:
                            seen = finished.result()
                        except StopAsyncIteration:
                            return
                        if seen[1] is not None:
                            poll_at = clock() + patience
                        yield seen
                    else:
                        await self._poll(job_id)
                        if await self._alive(job_id) is None:
                            return
                        poll_at = clock() + patience
            finally:
                if coming is not None:
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)

    async def _read(self, exchange: Exchange, job_id: str) -> AsyncGenerator[Seen, None]:
        parser = EventParser()
        async for chunk in exchange.chunks():
            for event in parser.feed(chunk):
                yield event, self._observer.event(event, job_id, "stream")

    async def _rest(self, seconds: float) -> None:
        """Wait for the next poll, and note how much later than planned it comes."""
        clock = asyncio.get_running_loop().time
        due = clock() + seconds
        await asyncio.sleep(seconds)
        self._metrics.watch_lag_seconds.set(max(0.0, clock() - due))

    def _pause(self, job: Job, delay: float) -> float:
        """Seconds to the next poll, spread so that many jobs do not ask at once."""
        if job.lost_since is not None:
            left = job.lost_since + self._settings.lost_after - self._now()
            delay = min(delay, max(0.05, left))
        return delay * (0.9 + 0.2 * self._jitter())

    async def reconcile(self) -> None:
        """Hold the store against the upstream's list once that can be had; adopt strangers.

        Not at once where replicas share the upstream: a job in its list may be one that another is
        about to record, with its owner.
        """
        delay = self._settings.poll.min
        while True:
            try:
                listed = await self._observer.listed()
                await asyncio.sleep(self._adopt_after_seconds)
                for observation in listed:
                    await self._tracker.observe(observation, "list")
            except (UpstreamError, StoreUnavailable) as error:
                self._log.info("reconcile_postponed", error=error.detail)
                await asyncio.sleep(delay)
                delay = min(self._settings.poll.max, delay * 2)
                continue
            self._wake.set()
            return


async def _hear_out(events: AsyncGenerator[Seen, None], following: Following) -> None:
    """What a stream says after the job's end, for as long as somebody reads."""
    if not following.has_readers:
        return
    with suppress(TimeoutError, UpstreamError):
        async with asyncio.timeout(_FAREWELL_SECONDS):
            async for event, shown in events:
                await following.tell(event, shown, None)
