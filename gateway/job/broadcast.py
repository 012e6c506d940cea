"""Streams of jobs told on: one observation of a job serves every client that wants to see it.

What a job's channel is told comes from the upstream's own stream while the watcher follows that
here. Else it is written from the job's record, as that changes: another replica follows the job,
or it is polled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.core.job import Job, JobChange, Observation, State
from gateway.core.rendering import Rendering
from gateway.core.sse import ServerEvent
from gateway.job.channel import Channel
from gateway.job.feed import Feed
from gateway.settings.job import FanOut
from gateway.telemetry.metric import Metrics

EVENT_STREAM = "text/event-stream"
_AWAITED_SECONDS = 0.5  # for the upstream's own stream, before the record is told instead
# For its own last words, likewise: it may say them only at its next look at the job, and many an
# upstream has none for a job that was cancelled.
_LAST_WORDS_SECONDS = {State.CANCELLED: 0.25, State.COMPLETED: 2.5, State.FAILED: 2.5}
_KEPT_SECONDS = 60.0  # a channel whose job has ended, for those who come back


class Broadcasts:
    """The channels of the jobs that somebody follows; `noted` hears of every recorded change.

    `active` is what is known of an unfinished job. Without a `rendering` only streams that are
    followed here are told on.
    """

    def __init__(
        self,
        settings: FanOut,
        rendering: Rendering | None,
        *,
        active: Callable[[str], Job | None],
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        # As the upstream's own streams have it, once one was seen.
        self.content_type = EVENT_STREAM
        self._settings = settings
        self._rendering = rendering
        self._active = active
        self._metrics = metrics
        self._now = now
        self._channels: dict[str, Channel] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    def join(self, job_id: str, last_id: int | None) -> Feed | None:
        """A reader's end of a job's stream; None when the upstream must be asked for it."""
        channel = self._channels.get(job_id)
        if channel is None:
            if self._rendering is None or self._active(job_id) is None:
                return None
            channel = self._open(job_id)
            self._later(_AWAITED_SECONDS, lambda: self._tell_record(job_id, channel))
        return channel.join(last_id)

    def has_seen_end(self, job_id: str, last_id: int) -> bool:
        """True for a client that has seen all there is of a job: it need not come back."""
        channel = self._channels.get(job_id)
        return channel is not None and channel.is_over and 0 < channel.last_id <= last_id

    def follow(self, job_id: str, content_type: str | None) -> Following:
        """The upstream's stream of a job is about to be read."""
        if content_type:
            self.content_type = content_type
        channel = self._channels.get(job_id)
        if channel is None or channel.is_over:
            channel = self._open(job_id)
        return Following(self, job_id, channel)

    async def noted(self, change: JobChange) -> None:
        """A change of a job was recorded, here or by another replica."""
        job = change.job
        channel = self._channels.get(job.id)
        if channel is None or channel.is_over or not change.events:
            return
        if channel.is_followed:
            if job.state.terminal:
                wait = _LAST_WORDS_SECONDS[job.state]
                self._later(wait, lambda: self.conclude(channel, job))
        elif channel.is_idle:
            self._drop(job.id, channel)
        elif job.state.terminal:
            self.conclude(channel, job)
        else:
            self._tell(channel, job)

    def conclude(self, channel: Channel, job: Job) -> None:
        """A job has ended: say so to whoever was not told yet, and end its stream."""
        if channel.is_over or (channel.is_followed and channel.has_ended):
            return
        if not channel.has_ended:
            self._tell(channel, job)
        self.end(job.id, channel, complete=channel.has_ended)

    def end(self, job_id: str, channel: Channel, *, complete: bool) -> None:
        """End a job's stream; for a while it is told to those who come late."""
        channel.finish(complete=complete)
        if channel.has_ended and channel.was_read and not channel.is_idle:
            self._later(_KEPT_SECONDS, lambda: self._drop(job_id, channel))
        else:
            self._drop(job_id, channel)

    def unfollowed(self, job_id: str, channel: Channel, *, is_whole: bool) -> None:
        """The upstream's stream is read no more; `is_whole` when it ended in order.

        Readers stay: from the job's record they learn what comes, until the stream is taken up
        again.
        """
        channel.is_followed = False
        if channel.is_over:
            return
        if channel.has_ended:
            self.end(job_id, channel, complete=True)
        elif self._rendering is None:
            self.end(job_id, channel, complete=is_whole)

    def close(self) -> None:
        """End every stream."""
        for timer in self._timers:
            timer.cancel()
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    def _tell_record(self, job_id: str, channel: Channel) -> None:
        """How a job stands, to readers to whom nothing else did say so."""
        job = self._active(job_id)
        if channel.has_told or channel.is_over or channel.is_followed:
            return
        if job is None:  # it ended meanwhile: the upstream has it whole
            self.end(job_id, channel, complete=False)
        else:
            self._tell(channel, job)

    def _tell(self, channel: Channel, job: Job) -> None:
        if self._rendering is None:
            return
        now = self._now()
        if not channel.has_told:
            channel.greet(self._rendering.greeting(job, now), anew=True)
        first, *rest = self._rendering.told(job, now)
        channel.show(first, job.sequence)
        for event in rest:
            channel.add(event)
        channel.has_ended = job.state.terminal

    def _open(self, job_id: str) -> Channel:
        channel = self._channels[job_id] = Channel(self._settings, self._metrics)
        return channel

    def _drop(self, job_id: str, channel: Channel) -> None:
        if self._channels.get(job_id) is channel:
            del self._channels[job_id]

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            work()

        timer = asyncio.get_running_loop().call_later(seconds, run)
        self._timers.add(timer)


class Following:
    """Tells a channel what the upstream's stream says; a context for as long as it is read.

    What a stream says before it shows the job is its greeting.
    """

    def __init__(self, broadcasts: Broadcasts, job_id: str, channel: Channel) -> None:
        self.is_whole = False  # the upstream ended the stream in order
        self._broadcasts = broadcasts
        self._job_id = job_id
        self._channel = channel
        self._has_greeted = self._shows_job = False

    @property
    def has_readers(self) -> bool:
        """True while somebody reads."""
        return self._channel.reader_count > 0

    async def tell(self, event: ServerEvent, shown: Observation | None, job: Job | None) -> None:
        """An event, after what is `shown` by it was recorded; `job` is then as recorded."""
        channel = self._channel
        if channel.is_over:
            return
        if shown is not None:
            self._shows_job = True
            channel.show(event, 0 if job is None else job.sequence)
            channel.has_ended = channel.has_ended or shown.state.terminal
        elif self._shows_job:
            channel.add(event)
        else:
            channel.greet(event, anew=not self._has_greeted)
            self._has_greeted = True
        await channel.settled()

    def __enter__(self) -> Self:
        self._channel.is_followed = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._broadcasts.unfollowed(
            self._job_id, self._channel, is_whole=self.is_whole and error is None
        )
