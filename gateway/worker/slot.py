"""The place of one worker: whoever has it is replaced, when it dies or is to be renewed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.core.restart import Restarts
from gateway.telemetry.log import get_logger
from gateway.telemetry.worker_metric import WorkerMetrics
from gateway.worker.member import Member

RENEW_SECONDS = 60.0  # for a new worker to serve, before the old one is left in its place

Spawn = Callable[[int], Awaitable[Member]]


class Slot:
    """`spawn` starts a process for a slot, `changed` hears that another has the slot, or nobody.

    `stop_seconds` is how long one may take to end before it is killed.
    """

    def __init__(
        self,
        number: int,
        *,
        spawn: Spawn,
        changed: Callable[[], None],
        stop_seconds: float,
        metrics: WorkerMetrics,
    ) -> None:
        self.number = number
        self.member: Member | None = None
        self.is_closed = False  # whoever ends is not replaced any more
        self._spawn = spawn
        self._changed = changed
        self._stop_seconds = stop_seconds
        self._restarts = Restarts()
        self._counted = metrics.worker_restarts_total
        # The member is replaced by one at a time: by `keep` when it died, else by `renew`.
        self._replacing = asyncio.Lock()
        self._log = get_logger("workers")

    async def open(self) -> int | None:
        """Start the first member; its exit code if it ends before it serves."""
        self.member = await self._spawn(self.number)
        if await self.member.is_ready():
            self._changed()
            return None
        return await self.member.ended()

    async def keep(self) -> bool:
        """Replace each member that dies; False when there have been too many deaths in a row."""
        while True:
            member = self.member
            assert member is not None
            await member.ended()
            async with self._replacing:
                if self.is_closed:
                    return True
                if self.member is member and not await self._replace(member):
                    return False

    async def renew(self) -> bool:
        """Put a new process in the old one's place once it serves; False when it does not."""
        async with self._replacing:
            old = self.member
            new = await self._spawn(self.number)
            if not await new.is_ready(RENEW_SECONDS):
                new.kill()
                self._log.error("worker_not_renewed", worker=self.number, pid=new.pid)
                return False
            self.member = new
            self._restarts = Restarts()
            self._counted.labels("reload").inc()
            self._changed()
        if old is not None and not await old.stop(self._stop_seconds):
            self._log.warning("worker_killed", worker=self.number, pid=old.pid)
        return True

    async def _replace(self, dead: Member) -> bool:
        """Another in a dead one's place; False when that is given up."""
        self._changed()
        while True:
            served = 0.0
            if dead.ready_at is not None:
                served = asyncio.get_running_loop().time() - dead.ready_at
            self._restarts = self._restarts.after(served)
            delay = self._restarts.delay_seconds
            self._log.error(
                "worker_died",
                worker=self.number,
                pid=dead.pid,
                exit_code=dead.exit_code,
                deaths=self._restarts.deaths,
                next_start_seconds=delay,
            )
            if delay is None:
                return False
            await asyncio.sleep(delay)
            if self.is_closed:
                return True
            self._counted.labels("hung" if dead.is_hung else "died").inc()
            self.member = dead = await self._spawn(self.number)
            if await dead.is_ready():
                self._changed()
                return True
            await dead.ended()
