"""The metrics of several workers as one exposition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from prometheus_client.registry import Collector

from gateway.telemetry.log import get_logger
from gateway.telemetry.merge import Families, Ledger, parse
from gateway.telemetry.metric import Metrics, render
from gateway.telemetry.worker_metric import WorkerMetrics
from gateway.worker.member import Member, Silent

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_PARENT = "parent"
_SECONDS = 2.0
_KEEP_SECONDS = 10.0


class Exposition:
    """Asks the members that `running` gives; what one said last counts while it does not answer."""

    def __init__(self, running: Callable[[], Sequence[Member]], metrics: WorkerMetrics) -> None:
        self._running = running
        self._metrics = metrics
        # Every gauge's rule: those of a worker's series are the same in all of them.
        self._ledger = Ledger({**Metrics().gauge_rules, **metrics.gauge_rules})
        self._log = get_logger("workers")

    async def run(self) -> None:
        """Ask now and then, so that one that is killed takes little of its counts with it."""
        while True:
            await self.look()
            await asyncio.sleep(_KEEP_SECONDS)

    async def look(self) -> None:
        """Ask each of them, all side by side."""
        await asyncio.gather(*map(self._ask, self._running()))

    async def render(self, accept: str) -> tuple[str, bytes]:
        """The content type and the exposition, as one process has it."""
        await self.look()
        self._ledger.note(_PARENT, list(self._metrics.registry.collect()))
        return render(_Collected(self._ledger.sum()), accept)

    def ended(self, member: Member) -> None:
        """A member has ended: what it counted stays."""
        self._ledger.end(member.name, self._parsed(member, member.last))

    async def _ask(self, member: Member) -> None:
        given = {"headers": {"Accept": OPENMETRICS}}
        try:
            async with member.ask("GET", "/metrics", _SECONDS, **given) as response:
                body = await response.read()
        except Silent as error:
            self._log.info("metrics_missed", worker=member.slot, error=str(error))
            return
        families = self._parsed(member, body)
        # It may have ended meanwhile, and then left more than this.
        if families is not None and member.exit_code is None:
            self._ledger.note(member.name, families)

    def _parsed(self, member: Member, exposition: bytes) -> Families | None:
        if not exposition:
            return None
        try:
            return parse(exposition)
        except ValueError as error:
            self._log.warning("metrics_unreadable", worker=member.slot, error=str(error))
            return None


class _Collected(Collector):
    """Families, as the library's encoders take them."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Families:
        return self._families
