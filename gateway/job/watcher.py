"""Watches unfinished jobs: claims them, observes the upstream, until they end.

A claimed job is followed by the upstream's stream where there is one and room for one more, by a
task of its own; the others are polled in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.core.contract import LIST, STREAM, Contract
from gateway.core.error import StoreUnavailable
from gateway.core.job import Job
from gateway.core.outbox import Claim
from gateway.job.broadcast import Broadcasts
from gateway.job.follower import Follower
from gateway.job.inquiry import Inquiry
from gateway.job.lease import Leases
from gateway.job.observer import Observer
from gateway.job.poller import Poller
from gateway.job.reconciliation import Reconciliation
from gateway.job.survey import Survey
from gateway.job.tracker import Tracker
from gateway.settings.job import Watch
from gateway.store.job import JobStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

MAX_WATCHED = 20_000
_CLAIM_SECONDS = 0.5
_CLAIMED_AT_ONCE = 500
_USELESS_STREAMS = 3
_AGAIN_SECONDS = 1.0  # after a defect


@dataclass(slots=True, eq=False)
class _Watch:
    """One job being watched.

    After a few streams that say nothing the upstream is taken not to stream it (`tries` is 0).
    `polls_first`: it was just streamed, and is asked of before it is again.
    """

    tries: int
    stream: asyncio.Task[None] | None = None
    polls_first: bool = False


class Watcher:
    """Claims due jobs and watches each until it ends, or another has taken it over."""

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
    ) -> None:
        self._store = jobs
        self._tracker = tracker
        self._settings = settings
        self._upstream = upstream
        self._replicas = replicas
        self._now = now
        self._log = get_logger("watcher")
        self._wake = asyncio.Event()
        self._watches: dict[str, _Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # streams, and claims given back
        self._streams = 0
        streams = settings.source != "poll" and contract.has(STREAM)
        self._tries = _USELESS_STREAMS if streams else 0
        self._inquiry = Inquiry(tracker, observer)
        self._follower = Follower(
            self._inquiry, observer, broadcasts, patience_seconds=settings.poll.max
        )
        self._leases = Leases(jobs, lease_seconds=settings.lease, lost=self._lost, now=now)
        self._poller = Poller(
            tracker=tracker,
            inquiry=self._inquiry,
            settings=settings,
            leaves=self._begin_stream,
            ended=self._ended,
            failed=self._failed,
            metrics=metrics,
            now=now,
        )
        self._survey = Survey(observer, self._poller, settings, metrics)
        self._has_list = contract.has(LIST)
        self._reconciliation = Reconciliation(
            tracker,
            observer,
            poll=settings.poll,
            adopt_after_seconds=adopt_after_seconds,
            done=self.wake,
        )
        metrics.watched_jobs.labels("stream").set_function(lambda: self._streams)
        metrics.watched_jobs.labels("poll").set_function(lambda: len(self._poller))

    def wake(self) -> None:
        """Look for due jobs now: one was just created."""
        self._wake.set()

    async def reconcile(self) -> None:
        """Hold the store against the upstream's list once that can be had; adopt strangers."""
        await self._reconciliation.run()

    async def run(self) -> None:
        """Claim and watch until cancelled; then every claim is given back."""
        works = [self.reconcile, self._leases.run]
        if self._has_list:
            works.append(self._survey.run)
        beside = [asyncio.create_task(self._keep_on(work)) for work in works]
        try:
            while True:
                await self._claim_all()
                with suppress(TimeoutError):
                    # Not wait_for: until Python 3.12 it loses a cancellation that meets the wake.
                    async with asyncio.timeout(_CLAIM_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            tasks = [*beside, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._poller.close()
            self._watches.clear()
            await self._leases.release_all(self._due_again())

    async def _keep_on(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do it to its end, however often a defect breaks it off."""
        while True:
            try:
                return await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the jobs are watched on
                self._log.error("watch_broke_off", exc_info=error)
                await asyncio.sleep(_AGAIN_SECONDS)

    # --- claims ----------------------------------------------------------------------------------

    async def _claim_all(self) -> None:
        claimed = _CLAIMED_AT_ONCE
        while claimed == _CLAIMED_AT_ONCE:  # there may be more
            claimed = await self._claim()

    async def _claim(self) -> int:
        """Claim some of the jobs that are due; how many."""
        free = min(MAX_WATCHED, self._share()) - len(self._watches)
        if free <= 0:
            return 0
        limit = min(free, _CLAIMED_AT_ONCE)
        try:
            claims = await self._store.claim_due(
                self._upstream, limit, self._now(), self._settings.lease
            )
        except StoreUnavailable as error:
            self._log.warning("claim_failed", error=error.detail)
            return 0
        for claim in claims:
            self._begin(claim)
        return len(claims)

    def _share(self) -> int:
        """How many jobs to watch; what a replica that is gone leaves is taken up little by little.

        The others have their equal parts, so one that is first does not watch them all.
        """
        replicas = self._replicas()
        if replicas <= 1:
            return MAX_WATCHED
        equal = -(-self._tracker.active_count // replicas)
        return max(equal, len(self._watches)) + 1

    def _begin(self, claim: Claim[Job]) -> None:
        job_id = claim.item.id
        self._forget(job_id)  # its lease ran out unnoticed: the new claim takes its place
        self._watches[job_id] = _Watch(self._tries)
        self._leases.hold(claim)
        if not self._begin_stream(job_id):
            self._poller.add(job_id)

    def _forget(self, job_id: str) -> None:
        watch = self._watches.pop(job_id, None)
        self._poller.drop(job_id)
        if watch is not None and watch.stream is not None:
            watch.stream.cancel()

    def _lost(self, claim: Claim[Job]) -> None:
        self._forget(claim.item.id)
        # Should it be nobody's, whoever claims next need not wait.
        self._spawn(self._leases.give_back(claim, self._due_again()))

    def _ended(self, job_id: str) -> None:
        self._forget(job_id)
        self._spawn(self._leases.release(job_id, self._due_again()))

    def _failed(self, job_id: str, error: BaseException) -> None:
        self._log.error("watch_failed", job_id=job_id, exc_info=error)
        self._ended(job_id)

    def _due_again(self) -> float:
        return self._now() + self._settings.poll.min

    # --- streams ---------------------------------------------------------------------------------

    def _begin_stream(self, job_id: str) -> bool:
        """Follow the job's stream from now on, if it has one and there is room for it."""
        watch = self._watches.get(job_id)
        if watch is None or not watch.tries or self._streams >= self._settings.max_streams:
            return False
        if watch.polls_first:
            watch.polls_first = False
            return False
        self._streams += 1
        watch.stream = self._spawn(self._follow(job_id, watch))
        watch.stream.add_done_callback(self._stream_left)
        return True

    def _stream_left(self, _: asyncio.Task[None]) -> None:
        self._streams -= 1

    async def _follow(self, job_id: str, watch: _Watch) -> None:
        try:
            job = await self._inquiry.alive(job_id)
            useful = job is not None and await self._follower.follow(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            if self._watches.get(job_id) is watch:
                watch.stream = None
                self._failed(job_id, error)
            return
        if self._watches.get(job_id) is not watch:
            return
        watch.stream, watch.polls_first = None, True
        watch.tries = _USELESS_STREAMS if useful else watch.tries - 1
        self._poller.add(job_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
