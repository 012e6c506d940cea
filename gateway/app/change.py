"""What a job's change sets off beside its messages: old answers end, new ones are fetched."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from gateway.app.behind import Behind
from gateway.core.job import JobChange
from gateway.policy.cache import ResponseCache

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class Changes:
    """Hears of every change, before and after it is committed.

    `warm` fetches a job's status, `spawn` runs such a fetch beside everything else.
    """

    def __init__(
        self,
        cache: ResponseCache,
        behind: Behind,
        warm: Callable[[str], Coroutine[Any, Any, None]],
        spawn: Spawn,
    ) -> None:
        self._cache = cache
        self._behind = behind
        self._warm = warm
        self._spawn = spawn
        self._polled: set[str] = set()  # jobs about to change, of which answers were stored

    def follow(self) -> None:
        """Hear of changes from now on, before all others that do."""
        tracker = self._behind.tracker
        tracker.heralds.append(self.coming)
        tracker.listeners.insert(0, self.made)
        tracker.listeners_elsewhere.append(self.made_elsewhere)

    async def coming(self, change: JobChange) -> None:
        """Before a change is committed: whoever reads of it is given no answer from before."""
        if await self._cache.coming(change):
            self._polled.add(change.job.id)

    async def made(self, change: JobChange) -> None:
        """After it is committed: tell who waits for it."""
        if change.events:
            self._behind.wake()
        await self._cache.changed(change)
        job_id = change.job.id
        polled = job_id in self._polled
        self._polled.discard(job_id)
        if not change.events:
            return
        if change.before is None:
            self._behind.watcher.wake()
        if change.before is None or polled:
            self._spawn(self._warm(job_id))

    async def made_elsewhere(self, change: JobChange) -> None:
        """After another replica committed one: what is cached here of the job is old."""
        await self._cache.coming(change)
        await self._cache.changed(change)
