"""What changes of jobs count for in the metrics, and how long jobs take."""

from __future__ import annotations

from collections import deque

from gateway.core.job import JobChange, State
from gateway.store.job import JobQuery, JobStore
from gateway.telemetry.metric import Metrics, error_type_label

_DURATIONS = 256  # kept to judge how long jobs take
_TAKEN_UP = 100  # of them, from the store at the start


class Meter:
    """Counts recorded changes; `durations` are seconds of the jobs that ended last."""

    def __init__(self, metrics: Metrics) -> None:
        self.durations: deque[float] = deque(maxlen=_DURATIONS)
        self._metrics = metrics

    async def open(self, store: JobStore) -> None:
        """Learn how long the latest jobs took."""
        completed, _ = await store.list(JobQuery(state=State.COMPLETED, limit=_TAKEN_UP))
        self.durations.extend(
            job.finished_at - job.created_at
            for job in reversed(completed)
            if job.finished_at is not None
        )

    def note(self, change: JobChange) -> None:
        """A change was recorded."""
        metrics, before, job = self._metrics, change.before, change.job
        if before is None:
            metrics.jobs_created_total.inc()
        known = before.stage_seconds if before else {}
        for stage, spent in job.stage_seconds.items():
            if spent > known.get(stage, 0.0):
                label = metrics.stage_label(stage)
                metrics.job_stage_seconds.labels(label).observe(spent - known.get(stage, 0.0))
        match job.state:
            case State.COMPLETED:
                metrics.jobs_completed_total.inc()
            case State.FAILED:
                error = job.error or {}
                metrics.jobs_failed_total.labels(error_type_label(error.get("error_type"))).inc()
            case State.CANCELLED:
                metrics.jobs_cancelled_total.inc()
        if job.finished_at is not None:
            took = job.finished_at - job.created_at
            metrics.job_processing_seconds.observe(took)
            self.durations.append(took)
