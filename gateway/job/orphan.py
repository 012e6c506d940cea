"""Jobs of upstream instances that are gone, ended by a replica that still lives."""

from __future__ import annotations

from collections.abc import Callable

from gateway.job.tracker import Tracker
from gateway.store.job import JobStore
from gateway.store.replica import Replicas
from gateway.telemetry.log import get_logger

_BATCH = 100


class Orphans:
    """Where each replica has an upstream of its own, and that instance alone knows its jobs.

    An instance is gone once its last sign of life ended `lost_after_seconds` ago. Its jobs are
    claimed like any other, so one replica ends each, and one that the instance's own replica still
    holds waits until that lease has run out.
    """

    def __init__(
        self,
        *,
        jobs: JobStore,
        replicas: Replicas,
        tracker: Tracker,
        instance: str,
        lost_after_seconds: float,
        lease_seconds: float,
        now: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._replicas = replicas
        self._tracker = tracker
        self._instance = instance
        self._lost_after_seconds = lost_after_seconds
        self._lease_seconds = lease_seconds
        self._now = now
        self._log = get_logger("job")

    async def end(self) -> int:
        """End what is orphaned now; how many jobs. Raises `StoreUnavailable`."""
        count = 0
        gone = await self._replicas.gone(self._now() - self._lost_after_seconds)
        for instance in self._tracker.upstreams.intersection(gone) - {self._instance}:
            count += await self._end_of(instance)
        return count

    async def _end_of(self, instance: str) -> int:
        count = 0
        while claims := await self._jobs.claim_due(
            instance, _BATCH, self._now(), self._lease_seconds
        ):
            for claim in claims:
                await self._tracker.lose(claim.item.id)
                await self._jobs.release(claim, self._now())
            self._log.warning("jobs_orphaned", instance=instance, count=len(claims))
            count += len(claims)
        return count
