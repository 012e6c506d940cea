"""The right to watch jobs, kept for as long as they are watched: many are renewed at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.error import StoreUnavailable
from gateway.core.job import Job
from gateway.core.outbox import Claim
from gateway.store.job import JobStore
from gateway.telemetry.log import get_logger

BATCH = 500  # renewed in one step
_TURNS = 4  # looks at who is due, within the time that one has
_TRIES = 3  # to renew a lease before it ends


class Leases:
    """The claims held; `lost` hears of those that another has taken over."""

    def __init__(
        self,
        store: JobStore,
        *,
        lease_seconds: float,
        lost: Callable[[Claim[Job]], None],
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._lost = lost
        self._now = now
        self._log = get_logger("watcher")
        # By when they are to be renewed (loop time), which is the order they are in.
        self._held: dict[str, tuple[float, Claim[Job]]] = {}

    def hold(self, claim: Claim[Job]) -> None:
        """Keep a claim from now on, instead of an older one of the same job."""
        self._held.pop(claim.item.id, None)
        due_at = asyncio.get_running_loop().time() + self._lease_seconds / _TRIES
        self._held[claim.item.id] = (due_at, claim)

    async def release(self, job_id: str, due_at: float) -> None:
        """Give a job's claim back, if it is held: to be due again at `due_at`, epoch seconds."""
        _, claim = self._held.pop(job_id, (0.0, None))
        if claim is not None:
            await self.give_back(claim, due_at)

    async def give_back(self, claim: Claim[Job], due_at: float) -> None:
        """Give a claim back that is not held any more."""
        try:
            await self._store.release(claim, due_at)
        except StoreUnavailable as error:  # the lease then runs out by itself
            self._log.info("release_failed", job_id=claim.item.id, error=error.detail)

    async def release_all(self, due_at: float) -> None:
        """Give every claim back."""
        held = list(self._held)
        for at in range(0, len(held), BATCH):
            batch = held[at : at + BATCH]
            await asyncio.gather(*(self.release(job_id, due_at) for job_id in batch))

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(self._lease_seconds / _TRIES / _TURNS)
            while batch := self._due():
                await self._renew(batch)

    def _due(self) -> list[Claim[Job]]:
        now = asyncio.get_running_loop().time()
        due: list[Claim[Job]] = []
        for due_at, claim in self._held.values():
            if due_at > now or len(due) == BATCH:
                break
            due.append(claim)
        return due

    async def _renew(self, claims: list[Claim[Job]]) -> None:
        try:
            kept = await self._store.renew(claims, self._now() + self._lease_seconds)
        except StoreUnavailable as error:
            # Tried again at their next turn; past the lease the fence decides.
            self._log.info("renewal_failed", error=error.detail)
            kept = {claim.item.id for claim in claims}
        for claim in claims:
            job_id = claim.item.id
            if self._held.get(job_id, (0.0, None))[1] is not claim:
                continue  # given back, or claimed anew, meanwhile
            if job_id in kept:
                self.hold(claim)
            else:
                del self._held[job_id]
                self._log.warning("lease_lost", job_id=job_id)
                self._lost(claim)
