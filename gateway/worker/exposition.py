"""The metrics of several workers as one exposition."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from prometheus_client.registry import Collector

from gateway.telemetry.log import get_logger
from gateway.telemetry.merge import Families, Ledger, merge, parse
from gateway.telemetry.metric import Metrics, render
from gateway.telemetry.worker_metric import WorkerMetrics
from gateway.worker.member import Member, Silent

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_PARENT = "parent"
_SECONDS = 2.0
_KEEP_SECONDS = 30.0


class Exposition:
    """Asks the members that `answering` gives; what another said last counts all the same.

    Reading and merging are a thread's work: many series take a while, and a probe must not wait.
    """

    def __init__(self, answering: Callable[[], Sequence[Member]], metrics: WorkerMetrics) -> None:
        self._answering = answering
        self._metrics = metrics
        # Every gauge's rule: those of a worker's series are the same in all of them.
        self._rules = {**Metrics().gauge_rules, **metrics.gauge_rules}
        self._ledger = Ledger()
        self._looked_at = -math.inf
        self._log = get_logger("workers")

    async def run(self) -> None:
        """Ask while nobody else does, so that one that is killed takes little with it."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_KEEP_SECONDS)
            if clock() - self._looked_at >= _KEEP_SECONDS:
                await self.look()

    async def look(self) -> None:
        """Ask each of them, all side by side."""
        self._looked_at = asyncio.get_running_loop().time()
        await asyncio.gather(*map(self._ask, self._answering()))

    async def render(self, accept: str) -> tuple[str, bytes]:
        """The content type and the exposition, as one process has it."""
        await self.look()
        self._ledger.note(_PARENT, list(self._metrics.registry.collect()))
        return await asyncio.to_thread(self._merged, self._ledger.expositions(), accept)

    async def ended(self, member: Member) -> None:
        """A member has ended: what it counted stays."""
        self._ledger.end(member.name, await self._parsed(member, member.last))

    async def _ask(self, member: Member) -> None:
        given = {"headers": {"Accept": OPENMETRICS}}
        try:
            async with member.ask("GET", "/metrics", _SECONDS, **given) as response:
                body = await response.read()
                response.raise_for_status()
        except Silent as error:
            self._log.info("metrics_missed", worker=member.slot, error=str(error))
            return
        families = await self._parsed(member, body)
        # It may have ended meanwhile, and then left more than this.
        if families is not None and member.exit_code is None:
            self._ledger.note(member.name, families)

    async def _parsed(self, member: Member, exposition: bytes) -> Families | None:
        if not exposition:
            return None
        try:
            return await asyncio.to_thread(parse, exposition)
        except ValueError as error:
            self._log.warning("metrics_unreadable", worker=member.slot, error=str(error))
            return None

    def _merged(self, expositions: Sequence[Families], accept: str) -> tuple[str, bytes]:
        return render(_Collected(merge(expositions, self._rules)), accept)


class _Collected(Collector):
    """Families, as the library's encoders take them."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Families:
        return self._families
