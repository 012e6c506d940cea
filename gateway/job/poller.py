"""Polls jobs, each when it is its turn: fast while it moves, slow while it does not.

There is no task and no timer a job, only an entry in `core.turn`. One timer waits for the next
turn, and a turn under way is a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from gateway.core.job import Job
from gateway.core.turn import Turns
from gateway.job.inquiry import Inquiry
from gateway.job.tracker import Tracker
from gateway.settings.job import Watch
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

_SLOWER = 1.5  # the next pause of a job that did not move
_EARLIEST = 0.5  # of the pause: within this and the whole a turn is placed where others are fewest
_TRUSTED_PAUSES = 10  # the longest pauses for which a job that is spared is not asked of itself
_LOOK_SECONDS = 1.0  # between looks at the wall clock, which may jump
_EXPIRING = 100  # jobs whose time-out is recorded at once
_SOON_SECONDS = 0.05  # until a job is asked of that is about to be given up as lost


@dataclass(slots=True)
class _Polled:
    """What is known of a job that is polled: `sequence` is that of its last turn."""

    pause_seconds: float
    sequence: int
    asked_at: float


class Poller:
    """Gives jobs their turns until they end.

    Before a turn `leaves` may take the job away, to be observed otherwise. `ended` hears of jobs
    that have ended, `failed` of those whose turn met a defect; both have then left.
    """

    def __init__(  # noqa: PLR0913 - collaborators, each by its name
        self,
        *,
        tracker: Tracker,
        inquiry: Inquiry,
        settings: Watch,
        leaves: Callable[[str], bool],
        ended: Callable[[str], None],
        failed: Callable[[str, BaseException], None],
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._tracker = tracker
        self._inquiry = inquiry
        self._settings = settings
        self._leaves = leaves
        self._ended = ended
        self._failed = failed
        self._metrics = metrics
        self._now = now
        self._log = get_logger("watcher")
        self._polled: dict[str, _Polled] = {}
        self._turns = Turns()  # in loop time
        self._deadlines = Turns()  # in epoch seconds: when jobs have run for too long
        self._asking: set[asyncio.Task[None]] = set()
        self._expiring: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._polled)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._polled

    def add(self, job_id: str) -> None:
        """Poll a job from now on, for the first time at once."""
        job = self._tracker.active(job_id)
        sequence = 0 if job is None else job.sequence
        self._polled[job_id] = _Polled(self._settings.poll.min, sequence, self._clock())
        self._turns.put(job_id, self._clock())
        self._note_deadline(job)
        self._look_soon()

    def drop(self, job_id: str) -> None:
        """Poll it no more; a turn under way comes to its end."""
        self._polled.pop(job_id, None)
        self._turns.drop(job_id)
        self._deadlines.drop(job_id)

    def hasten(self, job_id: str) -> None:
        """It has moved: its turn is now."""
        polled, at, now = self._polled.get(job_id), self._turns.at(job_id), self._clock()
        if polled is None or at is None:
            return
        polled.pause_seconds = self._settings.poll.min
        if at > now:
            self._turns.put(job_id, now)
            self._look_soon()

    def spare(self, job_id: str, seconds: float) -> bool:
        """It has not moved: no turn is needed for so long; False for one that is due for long."""
        polled, at, now = self._polled.get(job_id), self._turns.at(job_id), self._clock()
        if polled is None or at is None:
            return False
        if now - polled.asked_at > _TRUSTED_PAUSES * self._settings.poll.max:
            return False
        job = self._tracker.active(job_id)
        if job is None or job.lost_since is not None:
            return False
        self._turns.put_within(job_id, max(at, now + _EARLIEST * seconds), max(at, now + seconds))
        return True

    async def close(self) -> None:
        """Give up what is under way."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._asking, *self._expiring]
        self._polled.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- whose turn it is ------------------------------------------------------------------------

    def _look_soon(self) -> None:
        """Look at once, but not within the caller's own step."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Begin what is due, as far as there is room, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._polled:
            return
        now = self._clock()
        while len(self._expiring) < _EXPIRING:
            job_id = self._deadlines.take(self._now())
            if job_id is None:
                break
            self._start(self._expire(job_id), self._expiring)
        while len(self._asking) < self._settings.max_polls:
            planned = self._turns.next_at()
            job_id = self._turns.take(now)
            if job_id is None or planned is None:
                break
            self._metrics.watch_lag_seconds.set(max(0.0, now - planned))
            self._start(self._turn(job_id, self._polled[job_id]), self._asking)
        wait = _LOOK_SECONDS
        if len(self._asking) < self._settings.max_polls and (at := self._turns.next_at()):
            wait = min(wait, max(0.0, at - now))
        self._timer = asyncio.get_running_loop().call_later(wait, self._look)

    def _start(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if not task.cancelled():
                self._look_soon()

        task.add_done_callback(done)

    async def _turn(self, job_id: str, polled: _Polled) -> None:
        try:
            job = await self._asked(job_id, polled)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            if self._polled.get(job_id) is polled:
                self.drop(job_id)
                self._failed(job_id, error)
            return
        if self._polled.get(job_id) is not polled:
            return  # it was taken away meanwhile
        if job is None:
            self.drop(job_id)
            self._ended(job_id)
            return
        moved = job.sequence != polled.sequence
        polled.sequence = job.sequence
        pause = polled.pause_seconds * _SLOWER
        polled.pause_seconds = (
            self._settings.poll.min if moved else min(self._settings.poll.max, pause)
        )
        self._plan(job, polled)

    async def _asked(self, job_id: str, polled: _Polled) -> Job | None:
        """The job after its turn; None when it has ended, or has left."""
        job = await self._inquiry.alive(job_id)
        if job is None or self._polled.get(job_id) is not polled:
            return None
        if self._leaves(job_id):
            self.drop(job_id)
            return None
        if not self._was_seen(job, polled):
            polled.asked_at = self._clock()
            await self._inquiry.poll(job_id)
        return self._tracker.active(job_id)

    def _was_seen(self, job: Job, polled: _Polled) -> bool:
        """True when a client's own traffic has just shown the job: the upstream said all."""
        age = self._now() - job.observed_at
        return job.lost_since is None and 0 <= age < _EARLIEST * polled.pause_seconds * 0.9

    def _plan(self, job: Job, polled: _Polled) -> None:
        """The next turn."""
        now, pause = self._clock(), polled.pause_seconds
        if job.lost_since is not None:
            left = job.lost_since + self._settings.lost_after - self._now()
            pause = min(pause, max(_SOON_SECONDS, left))
        self._turns.put_within(job.id, now + _EARLIEST * pause, now + pause)
        self._note_deadline(job)

    # --- whose time has run out ------------------------------------------------------------------

    def _note_deadline(self, job: Job | None) -> None:
        if job is not None and job.running_since is not None and job.id not in self._deadlines:
            self._deadlines.put(job.id, job.running_since + self._settings.timeout)

    async def _expire(self, job_id: str) -> None:
        """However long the upstream lets its polls wait."""
        job = await self._inquiry.alive(job_id)
        if job_id not in self._polled:
            return
        if job is None:
            self.drop(job_id)
            self._ended(job_id)
        else:  # it could not be recorded
            self._deadlines.put(job_id, self._now() + _LOOK_SECONDS)

    def _clock(self) -> float:
        return asyncio.get_running_loop().time()
