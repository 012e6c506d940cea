"""A collector that fails, and what that costs, are named in health with since when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.core.trace import Kind, Span, TraceContext
from gateway.settings.telemetry import Tracing
from gateway.telemetry.export import CollectorRefused, Exporter, Rejection
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer
from gateway.web.health import Reading, Status
from gateway.web.tracing_health import check_tracing
from tests.support.collector import nowhere
from tests.support.fakes import FakeClock


class Refusing:
    """Refuses once, then takes what comes."""

    def __init__(self) -> None:
        self.refuses = True
        self.answered = asyncio.Event()

    async def send(self, spans: Sequence[Span]) -> Rejection:
        refuses, self.refuses = self.refuses, False
        self.answered.set()
        if refuses:
            raise CollectorRefused("answered 401")
        return Rejection()

    async def close(self) -> None:
        """Nothing to close."""


def span() -> Span:
    context = TraceContext("1" * 32, "1" * 16, 1)
    return Span("GET /", Kind.SERVER, context, None, 0.0, Tracer(1.0, nowhere))


async def after(exporter: Exporter, collector: Refusing, clock: FakeClock) -> None:
    """Send one span, a minute later than the one before."""
    clock.at += 60
    collector.answered.clear()
    exporter.record(span())
    await collector.answered.wait()


async def test_health_follows_the_collector() -> None:
    collector, clock = Refusing(), FakeClock(1700000000)
    exporter = Exporter(collector, Tracing(batch=1), Metrics(), clock)
    check = check_tracing(exporter)
    exporter.start()
    try:
        assert (await check()).status is Status.HEALTHY

        await after(exporter, collector, clock)
        assert await check() == Reading(
            Status.DEGRADED,
            "the collector: answered 401",
            {
                "waiting": 0,
                "dropped": 1,
                "last_dropped_at": "2023-11-14T22:14:20.000Z",
                "failing_since": "2023-11-14T22:14:20.000Z",
            },
        )

        await after(exporter, collector, clock)
        well = await check()
        assert (well.status, well.detail["dropped"], well.detail["failing_since"]) == (
            Status.HEALTHY,
            1,
            None,
        )
    finally:
        await exporter.stop(1.0)


async def test_spans_dropped_since_the_last_look_are_told_once() -> None:
    exporter = Exporter(Refusing(), Tracing(queue=1, batch=1), Metrics(), FakeClock())
    check = check_tracing(exporter)
    for _ in range(3):
        exporter.record(span())

    first, second = await check(), await check()

    assert (first.status, first.error) == (
        Status.DEGRADED,
        "2 spans were dropped since the last look",
    )
    assert second.status is Status.HEALTHY
