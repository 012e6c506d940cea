"""One look at a job: has its time run out, and what does the upstream say of it."""

from __future__ import annotations

from gateway.core.error import StoreUnavailable, UpstreamError
from gateway.core.job import Job, Observation
from gateway.job.observer import Observer
from gateway.job.tracker import Tracker
from gateway.telemetry.log import get_logger


class Inquiry:
    """Looks at jobs; what goes wrong is logged, and seen again at the next look."""

    def __init__(self, tracker: Tracker, observer: Observer) -> None:
        self._tracker = tracker
        self._observer = observer
        self._log = get_logger("watcher")

    async def alive(self, job_id: str) -> Job | None:
        """The job if it has not ended, time-outs applied."""
        try:
            job = await self._tracker.expire(job_id)
        except StoreUnavailable as error:
            self._log.warning("expiry_failed", job_id=job_id, error=error.detail)
            return self._tracker.active(job_id)
        return None if job is None or job.state.terminal else job

    async def poll(self, job_id: str) -> None:
        """Ask the upstream once, and record what it says."""
        job = self._tracker.active(job_id)
        if job is None:
            return
        try:
            observation = await self._observer.status(job)
            if observation is not None:
                await self._tracker.observe(observation, "poll")
        except UpstreamError as error:
            self._log.info("poll_failed", job_id=job_id, reason=error.reason)
        except StoreUnavailable as error:
            self._log.warning("poll_not_recorded", job_id=job_id, error=error.detail)

    async def take(self, observation: Observation) -> Job | None:
        """Record what a stream showed; the job afterwards."""
        try:
            return await self._tracker.observe(observation, "stream")
        except StoreUnavailable as error:
            self._log.warning("event_not_recorded", job_id=observation.job_id, error=error.detail)
            return None
