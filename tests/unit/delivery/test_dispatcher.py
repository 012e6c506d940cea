"""The dispatcher loses nothing: whatever a sink, the store or a stop does, a message stays due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.core.error import StoreUnavailable
from gateway.core.outbox import DeliveryStatus, Message
from gateway.core.retry import ErrorKind, Outcome, Schedule
from gateway.core.trace import Kind, Span
from gateway.delivery import attempt, dispatcher
from gateway.delivery.dispatcher import Dispatcher
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer
from tests.support.delivery import MemoryOutbox, ScriptedSink, make_message, until

OK = Outcome(0.0, status_code=204)
FAILED = Outcome(0.0, ErrorKind.HTTP_STATUS, 500)


@asynccontextmanager
async def running(
    outbox: MemoryOutbox,
    *sinks: ScriptedSink,
    metrics: Metrics | None = None,
    lease_margin_seconds: float = dispatcher.LEASE_MARGIN_SECONDS,
    tracer: Tracer | None = None,
) -> AsyncIterator[Dispatcher]:
    works = Dispatcher(
        outbox,
        sinks,
        now=time.time,
        jitter=lambda: 0.0,
        metrics=metrics or Metrics(),
        lease_margin_seconds=lease_margin_seconds,
        tracer=tracer,
    )
    await works.start()
    try:
        yield works
    finally:
        await works.stop(0.0)


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"gateway_{name}", labels) or 0.0


def raises(error: BaseException) -> Callable[[Message], Any]:
    def answer(_message: Message) -> Any:
        raise error

    return answer


def in_turn(*answers: Outcome | Exception) -> Callable[[Message], Outcome]:
    left = list(answers)

    def answer(_message: Message) -> Outcome:
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return answer


async def test_due_message_is_sent_settled_and_told_once() -> None:
    outbox, sink, metrics = MemoryOutbox(make_message()), ScriptedSink(), Metrics()
    async with running(outbox, sink, metrics=metrics):
        await until(lambda: bool(sink.told))
    assert outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED
    assert [told.status for told, _ in sink.told] == [DeliveryStatus.SUCCEEDED]
    assert [message.attempt for message in sink.sent] == [1]
    assert [attempt.number for attempt in outbox.entries["dlv_1"].attempts] == [1]
    assert counted(metrics, "delivery_attempts_total", sink="webhook", result="ok") == 1
    assert counted(metrics, "delivery_latency_seconds_count", sink="webhook") == 1


async def test_failure_is_retried_by_the_schedule_with_the_same_id_and_body() -> None:
    outbox, metrics = MemoryOutbox(make_message()), Metrics()
    sink = ScriptedSink(in_turn(FAILED, FAILED, OK))
    async with running(outbox, sink, metrics=metrics):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)
    assert [(each.id, each.body, each.attempt) for each in sink.sent] == [
        ("dlv_1", b'{"number":1}', number) for number in (1, 2, 3)
    ]
    assert counted(metrics, "delivery_attempts_total", sink="webhook", result="http_status") == 2


async def test_exhausted_message_is_dead_and_not_sent_again() -> None:
    outbox, sink = MemoryOutbox(make_message()), ScriptedSink(lambda _: FAILED)
    async with running(outbox, sink):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.EXHAUSTED)
    assert len(sink.sent) == 3


async def test_retry_is_made_when_due_without_being_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "IDLE_SECONDS", 3600.0)
    outbox = MemoryOutbox(make_message(due_at=time.time() + 0.05))
    async with running(outbox, ScriptedSink()):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)


async def test_wake_finds_a_new_message_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "IDLE_SECONDS", 3600.0)
    outbox = MemoryOutbox()
    async with running(outbox, ScriptedSink()) as works:
        await asyncio.sleep(0)
        await outbox.enqueue([make_message()])
        works.wake()
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)


async def test_message_of_another_process_is_found_without_being_woken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "IDLE_SECONDS", 0.01)
    outbox = MemoryOutbox()
    async with running(outbox, ScriptedSink()):
        await asyncio.sleep(0)
        await outbox.enqueue([make_message()])
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)


async def test_exception_in_a_sink_is_a_retriable_outcome() -> None:
    outbox, metrics = MemoryOutbox(make_message()), Metrics()
    sink = ScriptedSink(in_turn(RuntimeError("a bug"), OK))
    async with running(outbox, sink, metrics=metrics):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)
    first, second = outbox.entries["dlv_1"].attempts
    assert (first.error_kind, first.detail) == ("internal", "internal error: RuntimeError")
    assert second.error_kind is None
    assert counted(metrics, "delivery_attempts_total", sink="webhook", result="internal") == 1


async def test_exception_in_a_schedule_costs_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "FALLBACK_DELAY_SECONDS", 0.0)

    class Broken(ScriptedSink):
        async def schedule(self, message: Message) -> Schedule:
            raise RuntimeError("a bug")

    outbox, sink = MemoryOutbox(make_message()), Broken(in_turn(*[FAILED] * 20, OK))
    async with running(outbox, sink):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)
    assert len(sink.sent) == 21


async def test_exception_while_a_sink_is_told_hurts_nobody() -> None:
    class Broken(ScriptedSink):
        async def settled(self, message: Message, outcome: Outcome) -> None:
            self.told.append((message, outcome))
            raise RuntimeError("a bug") if message.id == "dlv_1" else StoreUnavailable("away")

    outbox = MemoryOutbox(make_message(1), make_message(2), make_message(3))
    sink = Broken()
    async with running(outbox, sink):
        await until(lambda: len(sink.told) == 3)
    assert outbox.all_are(DeliveryStatus.SUCCEEDED)


async def test_sink_that_keeps_no_deadline_is_cut_off_within_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt, "SEND_MARGIN_SECONDS", 0.01)
    outbox = MemoryOutbox(make_message())
    sink = ScriptedSink(lambda _: asyncio.Event().wait(), deadline_seconds=0.0, delays_seconds=())
    async with running(outbox, sink):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.EXHAUSTED)
    assert outbox.entries["dlv_1"].attempts[0].error_kind == "timeout"


async def test_lease_outlasts_the_deadline_by_its_margin() -> None:
    outbox, sink = MemoryOutbox(make_message()), ScriptedSink(lambda _: asyncio.Event().wait())
    before = time.time()
    async with running(outbox, sink):
        await until(lambda: bool(sink.sent))
        lease_until = outbox.entries["dlv_1"].lease_until
    assert lease_until is not None
    assert lease_until >= before + sink.deadline_seconds + dispatcher.LEASE_MARGIN_SECONDS
    assert attempt.SEND_MARGIN_SECONDS < dispatcher.LEASE_MARGIN_SECONDS


@pytest.mark.parametrize("share", [1, 2, 3, 4, 16])
async def test_one_destination_never_exceeds_its_share(share: int) -> None:
    gate = asyncio.Event()

    async def answer(_message: Message) -> Outcome:
        await gate.wait()
        return OK

    outbox = MemoryOutbox(*[make_message(number) for number in range(40)])
    sink = ScriptedSink(answer, per_destination=share)
    async with running(outbox, sink):
        await until(lambda: sink.open.get("wh_1") == share)
        claims = outbox.claims
        await until(lambda: outbox.claims > claims + 3)
        assert sink.open["wh_1"] == share
        gate.set()
        await until(lambda: outbox.all_are(DeliveryStatus.SUCCEEDED))
    assert sink.peak_of["wh_1"] == share


async def test_hanging_destination_delays_no_other() -> None:
    async def answer(message: Message) -> Outcome:
        if message.destination == "wh_hang":
            await asyncio.Event().wait()
        return OK

    hanging = [make_message(number, destination="wh_hang") for number in range(100)]
    healthy = [make_message(100 + n, destination=f"wh_{n % 50}") for n in range(500)]
    outbox, sink = MemoryOutbox(*hanging, *healthy), ScriptedSink(answer)
    async with running(outbox, sink):
        await until(
            lambda: all(outbox.status(each.id) is DeliveryStatus.SUCCEEDED for each in healthy)
        )
        assert sink.open["wh_hang"] == sink.per_destination
    assert len([each for each in sink.sent if each.destination == "wh_hang"]) == 4


async def test_never_more_in_flight_than_the_sink_allows() -> None:
    messages = [make_message(number, destination=f"wh_{number}") for number in range(60)]

    async def answer(_message: Message) -> Outcome:
        await asyncio.sleep(0)
        return OK

    outbox, sink = MemoryOutbox(*messages), ScriptedSink(answer, concurrency=7)
    async with running(outbox, sink):
        await until(lambda: outbox.all_are(DeliveryStatus.SUCCEEDED))
    assert sink.peak_open == 7


async def test_store_away_pauses_is_counted_and_heals_by_itself() -> None:
    outbox, sink, metrics = MemoryOutbox(make_message()), ScriptedSink(), Metrics()
    outbox.away = True
    async with running(outbox, sink, metrics=metrics):
        await until(lambda: counted(metrics, "store_errors_total", store="outbox") >= 2)
        assert sink.sent == []
        outbox.away = False
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)


async def test_broken_store_call_stops_no_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "BACKOFF_FIRST_SECONDS", 0.001)
    faults = [ValueError("a bug"), ValueError("a bug")]

    class Broken(MemoryOutbox):
        async def next_due_at(self, sink: str) -> float | None:
            if faults:
                raise faults.pop()
            return await super().next_due_at(sink)

    outbox = Broken(make_message())
    async with running(outbox, ScriptedSink()):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)


async def test_verdict_is_recorded_once_the_store_is_back_without_sending_again() -> None:
    outbox, sink = MemoryOutbox(make_message()), ScriptedSink()
    outbox.settle_faults = 2
    async with running(outbox, sink):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)
    assert len(sink.sent) == 1


async def test_verdict_is_given_up_when_the_lease_has_ended() -> None:
    outbox, sink = MemoryOutbox(make_message()), ScriptedSink()
    outbox.settle_faults = 1000
    async with running(outbox, sink, lease_margin_seconds=-sink.deadline_seconds):
        await until(lambda: len(sink.sent) > 1)  # due again: another worker's, had there been one
    assert outbox.entries["dlv_1"].attempts == []
    assert sink.told == []


async def test_store_away_before_sending_leaves_the_message_to_its_lease() -> None:
    outbox, metrics = MemoryOutbox(make_message()), Metrics()
    sink = ScriptedSink(raises(StoreUnavailable("away")))
    async with running(outbox, sink, metrics=metrics) as works:
        await until(lambda: bool(sink.sent) and works.in_flight == 0)
    assert outbox.status("dlv_1") is DeliveryStatus.IN_FLIGHT
    assert outbox.entries["dlv_1"].attempts == []
    assert counted(metrics, "store_errors_total", store="outbox") == 1


async def test_attempt_whose_lease_was_lost_is_not_told() -> None:
    outbox, metrics = MemoryOutbox(make_message()), Metrics()

    def answer(message: Message) -> Outcome:
        outbox.entries[message.id].fence += 1  # another worker claimed it meanwhile
        return OK

    sink = ScriptedSink(answer)
    async with running(outbox, sink, metrics=metrics) as works:
        await until(lambda: bool(sink.sent) and works.in_flight == 0)
    assert sink.told == []
    assert counted(metrics, "delivery_latency_seconds_count", sink="webhook") == 0


async def test_stop_waits_for_attempts_under_way_and_claims_no_more() -> None:
    gate = asyncio.Event()

    async def answer(_message: Message) -> Outcome:
        await gate.wait()
        return OK

    outbox = MemoryOutbox(*[make_message(number) for number in range(10)])
    sink = ScriptedSink(answer, per_destination=4)
    async with running(outbox, sink) as works:
        await until(lambda: len(sink.sent) == 4)
        stopping = asyncio.create_task(works.stop(60.0))
        await asyncio.sleep(0)
        gate.set()
        await stopping
        assert works.in_flight == 0
    assert len(sink.sent) == 4
    done = [each for each in outbox.entries if outbox.status(each) is DeliveryStatus.SUCCEEDED]
    assert len(done) == 4


async def test_stop_abandons_what_does_not_end_and_leaves_it_to_its_lease() -> None:
    outbox, sink = MemoryOutbox(make_message()), ScriptedSink(lambda _: asyncio.Event().wait())
    async with running(outbox, sink) as works:
        await until(lambda: bool(sink.sent))
        await works.stop(0.0)
        assert works.in_flight == 0
    assert outbox.status("dlv_1") is DeliveryStatus.IN_FLIGHT
    assert outbox.entries["dlv_1"].lease_until is not None
    assert outbox.entries["dlv_1"].attempts == []


async def test_stop_still_records_what_a_receiver_has_answered() -> None:
    answered, gate = asyncio.Event(), asyncio.Event()

    class Slow(MemoryOutbox):
        async def settle(self, *arguments: Any) -> bool:
            answered.set()
            await gate.wait()
            return await super().settle(*arguments)

    outbox, sink = Slow(make_message()), ScriptedSink()
    async with running(outbox, sink) as works:
        await answered.wait()
        stopping = asyncio.create_task(works.stop(0.0))
        await asyncio.sleep(0.01)
        gate.set()
        await stopping
    assert outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED


async def test_stop_gives_up_a_verdict_that_the_store_does_not_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "SETTLE_SECONDS", 0.01)
    answered = asyncio.Event()

    class Stuck(MemoryOutbox):
        async def settle(self, *_arguments: Any) -> bool:
            answered.set()
            await asyncio.Event().wait()
            return False

    outbox = Stuck(make_message())
    async with running(outbox, ScriptedSink()) as works:
        await answered.wait()
        await works.stop(0.0)
        assert works.in_flight == 0
    assert outbox.status("dlv_1") is DeliveryStatus.IN_FLIGHT


async def test_stop_delivers_what_was_being_claimed() -> None:
    claiming, gate = asyncio.Event(), asyncio.Event()

    class Slow(MemoryOutbox):
        async def claim(self, *arguments: Any, **options: Any) -> Any:
            claiming.set()
            await gate.wait()
            return await super().claim(*arguments, **options)

    outbox, sink = Slow(make_message(1), make_message(2)), ScriptedSink()
    async with running(outbox, sink) as works:
        await claiming.wait()
        stopping = asyncio.create_task(works.stop(60.0))
        await asyncio.sleep(0)
        gate.set()
        await stopping
    assert outbox.all_are(DeliveryStatus.SUCCEEDED)


async def test_stopped_dispatcher_starts_again() -> None:
    outbox, sink = MemoryOutbox(make_message()), ScriptedSink()
    async with running(outbox, sink) as works:
        await works.stop(0.0)
        await outbox.enqueue([make_message(2)])
        outbox.settle_faults = 1
        await works.start()
        await until(lambda: outbox.all_are(DeliveryStatus.SUCCEEDED))
    assert [each.id for each in sink.sent if each.id == "dlv_2"] == ["dlv_2"]


async def test_stop_without_start_is_harmless() -> None:
    works = Dispatcher(
        MemoryOutbox(), [ScriptedSink()], now=time.time, jitter=lambda: 0.0, metrics=Metrics()
    )
    await works.stop(1.0)
    assert works.in_flight == 0


async def test_each_sink_has_a_lane_of_its_own() -> None:
    outbox = MemoryOutbox(make_message(1), make_message(2, sink="convex", destination="convex"))
    hanging, other = ScriptedSink(lambda _: asyncio.Event().wait(), concurrency=1), ScriptedSink()
    other.name = "convex"
    async with running(outbox, hanging, other):
        await until(lambda: outbox.status("dlv_2") is DeliveryStatus.SUCCEEDED)
    assert [each.id for each in other.sent] == ["dlv_2"]


async def test_store_away_before_a_schedule_is_known_sends_nothing() -> None:
    class Away(ScriptedSink):
        async def schedule(self, message: Message) -> Schedule:
            raise StoreUnavailable("away")

    outbox, sink, metrics = MemoryOutbox(make_message()), Away(), Metrics()
    async with running(outbox, sink, metrics=metrics):
        await until(lambda: counted(metrics, "store_errors_total", store="outbox") == 1)
    assert sink.sent == []
    assert outbox.status("dlv_1") is DeliveryStatus.IN_FLIGHT


async def test_broken_settlement_leaves_the_message_to_its_lease_and_others_go_on() -> None:
    class Broken(MemoryOutbox):
        async def settle(self, claim: Any, *arguments: Any) -> bool:
            if claim.item.id == "dlv_1":
                raise ValueError("a bug")
            return await super().settle(claim, *arguments)

    outbox, sink = Broken(make_message(1)), ScriptedSink()
    async with running(outbox, sink) as works:
        await until(lambda: bool(sink.sent) and works.in_flight == 0)
        await outbox.enqueue([make_message(2)])
        works.wake()
        await until(lambda: outbox.status("dlv_2") is DeliveryStatus.SUCCEEDED)
    assert outbox.status("dlv_1") is DeliveryStatus.IN_FLIGHT
    assert outbox.entries["dlv_1"].lease_until is not None


# --- fairness -------------------------------------------------------------------------------------


def backlog(destinations: int, each: int) -> list[Message]:
    """Messages to many destinations, all due before anything else."""
    at = time.time() - 3600
    return [
        make_message(
            number,
            destination=f"wh_{number % destinations}",
            job_id=f"j{number}",
            created_at=at,
            due_at=at,
        )
        for number in range(destinations * each)
    ]


async def test_new_message_does_not_wait_for_other_destinations_backlog() -> None:
    """An outage leaves much behind: what happens now reaches its receiver within one round."""
    outbox = MemoryOutbox(*backlog(40, 25))
    sink = ScriptedSink(lambda message: asyncio.sleep(0.001, OK), concurrency=8)
    async with running(outbox, sink) as dispatcher:
        await until(lambda: len(sink.sent) >= 100)
        await outbox.enqueue([make_message(5000, destination="wh_live")])
        before = len(sink.sent)
        dispatcher.wake()
        await until(lambda: any(sent.destination == "wh_live" for sent in sink.sent))
        waited = len(sink.sent) - before
    assert waited <= 40 * sink.per_destination + sink.concurrency


async def test_backlog_is_still_delivered_whole() -> None:
    outbox = MemoryOutbox(*backlog(40, 5))
    sink = ScriptedSink(concurrency=8)
    async with running(outbox, sink):
        await until(lambda: outbox.all_are(DeliveryStatus.SUCCEEDED))
    assert len(sink.sent) == 200


async def test_hanging_destinations_leave_half_of_the_slots_to_others() -> None:
    """Even more of them than there are slots: those that fail share one half among them."""
    release = asyncio.Event()
    dead = [make_message(n, destination=f"dead_{n % 30}", job_id=f"j{n}") for n in range(240)]
    outbox = MemoryOutbox(*dead)

    async def answer(message: Message) -> Outcome:
        if not message.destination.startswith("dead"):
            return OK
        if message.attempt == 1:
            return FAILED
        await release.wait()
        return FAILED

    sink = ScriptedSink(answer, concurrency=16, delays_seconds=(0.0, 3600.0))
    async with running(outbox, sink) as dispatcher:
        await until(lambda: sum(sink.open.values()) >= 8)
        healthy = [
            make_message(n, destination=f"well_{n}", job_id=f"w{n}") for n in range(500, 520)
        ]
        await outbox.enqueue(healthy)
        dispatcher.wake()
        await until(lambda: all(outbox.status(each.id).final for each in healthy))
        hanging = sum(sink.open.values())
        release.set()
    assert hanging == 8


async def test_destination_that_recovers_gets_its_whole_share_back() -> None:
    outbox = MemoryOutbox(*[make_message(n, destination=f"wh_{n}") for n in range(8)])
    release, sink_failed = asyncio.Event(), [True]

    async def answer(message: Message) -> Outcome:
        if sink_failed[0]:
            return FAILED
        if message.kind == "late":
            await release.wait()
        return OK

    sink = ScriptedSink(answer, concurrency=8, delays_seconds=(0.05, 0.05, 0.05))
    async with running(outbox, sink) as dispatcher:
        await until(lambda: len(sink.sent) >= 8)
        sink_failed[0] = False
        await until(lambda: outbox.all_are(DeliveryStatus.SUCCEEDED))
        late = [make_message(n, destination=f"wh_{n % 8}", kind="late") for n in range(100, 108)]
        await outbox.enqueue(late)
        dispatcher.wake()
        await until(lambda: sum(sink.open.values()) == 8)
        release.set()


TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


async def test_each_attempt_is_a_span_of_its_jobs_trace_and_tells_its_receiver_so() -> None:
    ended: list[Span] = []
    outbox = MemoryOutbox(make_message(traceparent=TRACEPARENT, request_id="req-1"))
    sink, metrics = ScriptedSink(in_turn(FAILED, OK)), Metrics()
    with capture_logs() as lines:
        async with running(outbox, sink, metrics=metrics, tracer=Tracer(0.0, ended.append)):
            await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)

    first, second = ended
    assert [span.name for span in ended] == ["webhook job.started"] * 2
    assert [(span.context.trace_id, span.parent_id) for span in ended] == [(TRACE_ID, SPAN_ID)] * 2
    assert [each.traceparent for each in sink.sent] == [each.context.traceparent for each in ended]
    assert first.context.span_id != second.context.span_id
    assert (first.kind, first.is_error, second.is_error) == (Kind.CLIENT, True, False)
    told = {name: value for name, value in first.attributes.items() if value is not None}
    assert told == {
        "http.request.method": "POST",
        "http.response.status_code": 500,
        "error.type": "http_status",
        "gateway.sink": "webhook",
        "gateway.destination": sink.sent[0].destination,
        "gateway.delivery_id": "dlv_1",
        "gateway.event_id": sink.sent[0].event_id,
        "gateway.event_type": "job.started",
        "gateway.job_id": sink.sent[0].job_id,
        "gateway.request_id": "req-1",
    }
    assert second.attributes["http.request.resend_count"] == 1
    attempts = [line for line in lines if line["event"] == "delivery_attempt"]
    assert [(line["trace_id"], line["span_id"]) for line in attempts] == [
        (TRACE_ID, span.context.span_id) for span in ended
    ]
    marks = metrics.render("application/openmetrics-text")[1].decode().splitlines()
    [mark] = [line for line in marks if " # {" in line]
    assert mark.startswith("gateway_delivery_latency_seconds_bucket")
    assert second.context.span_id in mark


async def test_a_message_that_was_not_sent_is_no_span() -> None:
    ended: list[Span] = []
    gone = Outcome(0.0, ErrorKind.REJECTED, permanent=True, final_status=DeliveryStatus.CANCELLED)
    outbox, sink = MemoryOutbox(make_message(traceparent=TRACEPARENT)), ScriptedSink(lambda _: gone)
    async with running(outbox, sink, tracer=Tracer(1.0, ended.append)):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.CANCELLED)

    assert ended == []


async def test_without_a_tracer_the_receiver_is_told_of_the_request_itself() -> None:
    outbox, sink = MemoryOutbox(make_message(traceparent=TRACEPARENT)), ScriptedSink()
    async with running(outbox, sink):
        await until(lambda: outbox.status("dlv_1") is DeliveryStatus.SUCCEEDED)

    assert [each.traceparent for each in sink.sent] == [TRACEPARENT]
