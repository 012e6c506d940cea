"""What a job's change sets off beside its messages: old answers end, and who waits is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gateway.app.behind import Behind
from gateway.app.status import Statuses
from gateway.core.error import NotCached, UpstreamError
from gateway.core.job import Job, JobChange
from gateway.policy.cache import ResponseCache
from gateway.policy.waiter import Waiters

Spawn = Callable[[Coroutine[Any, Any, None]], None]

# When to look for the status to tell: after so many seconds, asking the upstream or not.
_HERE = ((0.0, True), (0.2, True), (1.0, True))
# Another replica has seen the change and mostly shares what it saw, as soon as Redis has it.
_ELSEWHERE = ((0.0, False), (0.02, False), (0.1, False), (0.0, True), (0.5, True))
_FOREIGN = ((0.0, False), (0.02, False), (0.1, False), (0.5, False), (2.0, False))


class Changes:
    """Hears of every change, before and after it is committed.

    `waiters` are told of changes; `spawn` runs what is fetched for them beside everything else.
    """

    def __init__(
        self,
        *,
        cache: ResponseCache,
        statuses: Statuses,
        waiters: Waiters,
        behind: Behind,
        spawn: Spawn,
    ) -> None:
        self._cache = cache
        self._statuses = statuses
        self._waiters = waiters
        self._behind = behind
        self._spawn = spawn
        # Jobs about to change, of which answers were stored and none is that shows the change.
        self._polled: set[str] = set()

    def follow(self) -> None:
        """Hear of changes from now on, before all others that do."""
        tracker = self._behind.tracker
        tracker.heralds.append(self.coming)
        tracker.listeners.insert(0, self.made)
        tracker.listeners_elsewhere.append(self.made_elsewhere)

    async def coming(self, change: JobChange) -> None:
        """Before a change is committed: whoever reads of it is given no answer from before.

        Where it was seen in a status, that is what polls are answered with from now on.
        """
        ended = await self._cache.coming(change)
        if not await self._statuses.learn(change) and ended:
            self._polled.add(change.job.id)

    async def made(self, change: JobChange) -> None:
        """After it is committed: tell who waits for it."""
        if change.events:
            self._behind.wake()
        await self._cache.changed(change)
        job_id = change.job.id
        is_polled = job_id in self._polled or self._waiters.is_awaited(job_id)
        self._polled.discard(job_id)
        if not change.events:
            return
        if change.before is None:
            self._behind.watcher.wake()
        if change.before is None or is_polled:
            self._spawn(self._tell(job_id, _HERE))

    async def made_elsewhere(self, change: JobChange) -> None:
        """After another replica committed one: what is cached here of the job is old."""
        job = change.job
        await self._statuses.heard(change)
        await self._cache.changed(change)
        if change.events and self._waiters.is_awaited(job.id):
            self._spawn(self._tell(job.id, self._looks(job)))

    async def _tell(self, job_id: str, looks: Sequence[tuple[float, bool]]) -> None:
        """Have the status there for polls to come, and give it to all who wait.

        Those are told nothing while there is no answer: each would only ask for itself.
        """
        for pause_seconds, asks in looks:
            await asyncio.sleep(pause_seconds)
            try:
                answer = await self._statuses.fetch(job_id, asks=asks)
            except (UpstreamError, NotCached):
                answer = None
            else:
                if answer is None or answer.status < 500:
                    self._waiters.wake(job_id, answer)
                    return
            if not self._waiters.is_awaited(job_id):
                return  # the next poll asks again

    def _looks(self, job: Job) -> Sequence[tuple[float, bool]]:
        return _FOREIGN if self._behind.tracker.is_foreign(job) else _ELSEWHERE
