"""Whatever a collector does costs spans at most, which are counted: nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.core.trace import Kind, Span, TraceContext
from gateway.settings.telemetry import Tracing
from gateway.telemetry import export
from gateway.telemetry.export import CollectorAway, CollectorRefused, Exporter, Rejection
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer
from tests.support.collector import nowhere
from tests.support.fakes import FakeClock
from tests.support.policy import sample

Does = Callable[[Sequence[Span]], Rejection | Exception]


class ScriptedCollector:
    """Does what it is told; `batches` are those it was sent, answered or not."""

    def __init__(self, does: Does = lambda _: Rejection()) -> None:
        self.does = does
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_closed = False
        self._changed = asyncio.Condition()

    async def send(self, spans: Sequence[Span]) -> Rejection:
        async with self._changed:
            self.batches.append([span.name for span in spans])
            self._changed.notify_all()
        await self.gate.wait()
        found = self.does(spans)
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        self.is_closed = True

    async def sent(self, count: int) -> None:
        """Return once this many batches have come."""
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: len(self.batches) >= count)


def span(name: str) -> Span:
    context = TraceContext("1" * 32, "1" * 16, 1)
    return Span(name, Kind.SERVER, context, None, 0.0, Tracer(1.0, nowhere))


@asynccontextmanager
async def exporting(
    collector: ScriptedCollector,
    metrics: Metrics | None = None,
    clock: FakeClock | None = None,
    told: Callable[[], None] = lambda: None,
    **settings: Any,
) -> AsyncIterator[Exporter]:
    section = Tracing(**{"interval": 0.001, **settings})
    exporter = Exporter(collector, section, metrics or Metrics(), clock or FakeClock(), told)
    exporter.start()
    try:
        yield exporter
    finally:
        await exporter.stop(1.0)


def dropped(metrics: Metrics, reason: str) -> float:
    return sample(metrics, "trace_spans_dropped_total", reason=reason)


async def test_spans_are_sent_in_their_order_and_counted(metrics: Metrics) -> None:
    collector = ScriptedCollector()
    async with exporting(collector, metrics, batch=2, interval=60) as exporter:
        for name in "abcd":
            exporter.record(span(name))
        await collector.sent(2)

    assert collector.batches == [["a", "b"], ["c", "d"]]
    assert sample(metrics, "trace_spans_exported_total") == 4
    assert collector.is_closed


async def test_a_batch_that_is_not_full_goes_when_its_time_has_passed() -> None:
    collector = ScriptedCollector()
    async with exporting(collector, batch=100) as exporter:
        exporter.record(span("a"))
        await collector.sent(1)

    assert collector.batches == [["a"]]


async def test_of_too_many_that_wait_the_oldest_go_and_are_counted(
    metrics: Metrics, clock: FakeClock
) -> None:
    collector = ScriptedCollector()
    collector.gate.clear()
    async with exporting(collector, metrics, clock, queue=3, batch=1) as exporter:
        exporter.record(span("under way"))
        await collector.sent(1)
        for name in "abcde":
            exporter.record(span(name))

        assert exporter.state.waiting == 3
        assert (exporter.state.dropped, exporter.state.last_dropped_at) == (2, clock.at)
        collector.gate.set()

    assert collector.batches == [["under way"], ["c"], ["d"], ["e"]]
    assert dropped(metrics, "queue_full") == 2


async def test_a_collector_that_comes_back_gets_what_it_did_not_take(
    metrics: Metrics, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BACKOFF_FIRST_SECONDS", 0.001)
    answers: list[Rejection | Exception] = [
        CollectorAway("refused"),
        CollectorAway("refused"),
        Rejection(),
        Rejection(),
    ]
    collector = ScriptedCollector(lambda _: answers.pop(0))
    told: list[float | None] = []
    async with exporting(
        collector, metrics, clock, lambda: told.append(exporter.state.since)
    ) as exporter:
        exporter.record(span("a"))
        await collector.sent(3)
        exporter.record(span("b"))
        await collector.sent(4)

        assert exporter.state.error is None

    assert collector.batches == [["a"], ["a"], ["a"], ["b"]]
    assert sample(metrics, "trace_spans_exported_total") == 2
    assert told == [clock.at, None]  # when it began to fail, and when it was well


async def test_a_collector_that_says_how_long_is_left_alone_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def noted(_event: asyncio.Event, seconds: float) -> bool:
        waits.append(seconds)
        await asyncio.sleep(0)
        return False

    answers: list[Rejection | Exception] = [
        CollectorAway("429", 17.0),
        CollectorAway("503", 86400.0),
        Rejection(),
    ]
    collector = ScriptedCollector(lambda _: answers.pop(0))
    monkeypatch.setattr(export, "_passed", noted)
    async with exporting(collector, interval=3) as exporter:
        exporter.record(span("a"))
        await collector.sent(3)

    assert waits[:3] == [3, 17.0, export.WAIT_MAX_SECONDS]


async def test_what_is_refused_is_dropped_and_said(metrics: Metrics, clock: FakeClock) -> None:
    collector = ScriptedCollector(lambda _: CollectorRefused("answered 401"))
    async with exporting(collector, metrics, clock, batch=2) as exporter:
        exporter.record(span("a"))
        exporter.record(span("b"))
        exporter.record(span("c"))
        await collector.sent(2)

        assert (exporter.state.error, exporter.state.since) == ("answered 401", clock.at)

    assert collector.batches == [["a", "b"], ["c"]]
    assert dropped(metrics, "refused") == 3


async def test_spans_that_the_collector_rejects_are_counted(metrics: Metrics) -> None:
    collector = ScriptedCollector(lambda _: Rejection(1, "too old"))
    async with exporting(collector, metrics, batch=3) as exporter:
        for name in "abc":
            exporter.record(span(name))
        await collector.sent(1)

    assert exporter.state.error == "rejected spans: too old"
    assert sample(metrics, "trace_spans_exported_total") == 2
    assert dropped(metrics, "refused") == 1


async def test_a_bug_costs_a_batch_and_not_the_exporter(metrics: Metrics) -> None:
    answers: list[Rejection | Exception] = [KeyError("bug"), Rejection()]
    collector = ScriptedCollector(lambda _: answers.pop(0))
    async with exporting(collector, metrics) as exporter:
        exporter.record(span("a"))
        await collector.sent(1)
        exporter.record(span("b"))
        await collector.sent(2)

    assert dropped(metrics, "internal") == 1
    assert sample(metrics, "trace_spans_exported_total") == 1


async def test_what_waits_at_the_end_is_still_sent(metrics: Metrics) -> None:
    collector = ScriptedCollector()
    async with exporting(collector, metrics, batch=2, interval=60) as exporter:
        exporter.record(span("a"))

    assert collector.batches == [["a"]]
    assert sample(metrics, "trace_spans_exported_total") == 1


async def test_a_collector_that_hangs_holds_the_end_up_for_the_deadline_alone(
    metrics: Metrics,
) -> None:
    collector = ScriptedCollector()
    collector.gate.clear()
    async with exporting(collector, metrics, batch=1) as exporter:
        for name in "abc":
            exporter.record(span(name))
        await collector.sent(1)
        began = asyncio.get_running_loop().time()
        await exporter.stop(0.05)

        assert 0.04 < asyncio.get_running_loop().time() - began < 1.0

    assert dropped(metrics, "shutdown") == 3
    assert collector.is_closed


async def test_a_collector_that_is_away_at_the_end_is_asked_once_more_and_no_longer(
    metrics: Metrics,
) -> None:
    collector = ScriptedCollector(lambda _: CollectorAway("refused"))
    async with exporting(collector, metrics, batch=1) as exporter:
        for name in "abc":
            exporter.record(span(name))
        await collector.sent(1)
        await exporter.stop(60.0)

    assert collector.batches == [["a"], ["b"]]
    assert dropped(metrics, "shutdown") == 3


async def test_nobody_is_told_of_a_collector_that_fails_at_the_very_end() -> None:
    told: list[bool] = []
    collector = ScriptedCollector(lambda _: CollectorRefused("answered 503"))
    async with exporting(collector, told=lambda: told.append(True), interval=60) as exporter:
        exporter.record(span("a"))

    assert exporter.state.error == "answered 503"
    assert told == []


async def test_a_credential_in_a_reason_is_masked() -> None:
    collector = ScriptedCollector(lambda _: CollectorRefused("Bearer abcdef123456 is no good"))
    async with exporting(collector) as exporter:
        exporter.record(span("a"))
        await collector.sent(1)

    assert exporter.state.error == "[redacted] is no good"
