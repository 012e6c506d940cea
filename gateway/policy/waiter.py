"""Clients that wait for a job to change: who they are, how many, and how they are told.

A waiter is a future in its own request's coroutine: it has no task, and no timer but its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from gateway.core.message import Response
from gateway.telemetry.metric import Metrics

_AT_ONCE = 128  # woken in one turn of the loop: their answers must not hold everyone else up


class Waiter:
    """One client; `answer` is what all who wait for the job are given, where there is one.

    `is_woken` while there is news that it has not taken.
    """

    __slots__ = ("_future", "_number", "answer", "is_woken", "job_id", "whose")

    def __init__(self, job_id: str, whose: str) -> None:
        self.job_id = job_id
        self.whose = whose
        self.answer: Response | None = None
        self.is_woken = False
        self._number = 0
        self._future: asyncio.Future[bool] | None = None

    async def wait(self, seconds: float) -> bool:
        """Until there is news, or for `seconds`; False when they passed without any.

        News that came since the last time counts.
        """
        if not self.is_woken:
            loop = asyncio.get_running_loop()
            future = self._future = loop.create_future()
            timer = loop.call_later(seconds, _pass, future)
            try:
                await future
            finally:
                timer.cancel()
                self._future = None
        is_news, self.is_woken = self.is_woken, False
        return is_news

    def wake(self, answer: Response | None, number: int) -> None:
        """Tell it; what has a lower number than what it was told is older, and too late."""
        if number < self._number:
            return
        self._number, self.answer, self.is_woken = number, answer, True
        if self._future is not None:
            _pass(self._future)


class Waiters:
    """All of them; at most `max_waiters`, and `max_per_key` of one key or address."""

    def __init__(self, metrics: Metrics) -> None:
        self.max_waiters = self.max_per_key = 0
        self.is_over = False
        self._by_job: dict[str, dict[Waiter, None]] = {}  # in the order they came
        self._by_key: dict[str, int] = {}
        self._count = 0
        self._number = 0
        self._gauge = metrics.waiting_requests

    @contextmanager
    def joined(self, job_id: str, whose: str) -> Iterator[Waiter | None]:
        """A waiter for as long as the block lasts; None when there are too many."""
        of_key = self._by_key.get(whose, 0)
        if self.is_over or self._count >= self.max_waiters or of_key >= self.max_per_key:
            yield None
            return
        waiter = Waiter(job_id, whose)
        self._by_job.setdefault(job_id, {})[waiter] = None
        self._by_key[whose] = of_key + 1
        self._add(1)
        try:
            yield waiter
        finally:
            self._leave(waiter)

    def is_awaited(self, job_id: str) -> bool:
        """True while anybody waits for the job."""
        return job_id in self._by_job

    def wake(self, job_id: str, answer: Response | None) -> None:
        """Tell all who wait for the job, some in each turn of the loop."""
        self._number += 1
        self._wake_some(iter([*self._by_job.get(job_id, ())]), answer, self._number)

    def end(self) -> None:
        """Nobody waits from now on: each is told to go on."""
        self.is_over = True
        for job_id in [*self._by_job]:
            self.wake(job_id, None)

    def _wake_some(self, waiters: Iterator[Waiter], answer: Response | None, number: int) -> None:
        count = 0
        for waiter in islice(waiters, _AT_ONCE):
            waiter.wake(answer, number)
            count += 1
        if count == _AT_ONCE:
            loop = asyncio.get_running_loop()
            loop.call_soon(self._wake_some, waiters, answer, number)

    def _leave(self, waiter: Waiter) -> None:
        of_job = self._by_job[waiter.job_id]
        del of_job[waiter]
        if not of_job:
            del self._by_job[waiter.job_id]
        self._by_key[waiter.whose] -= 1
        if not self._by_key[waiter.whose]:
            del self._by_key[waiter.whose]
        self._add(-1)

    def _add(self, count: int) -> None:
        self._count += count
        self._gauge.set(self._count)


def _pass(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(True)
