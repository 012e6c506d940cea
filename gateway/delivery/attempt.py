"""One claimed message on its way: send, decide, settle, and say so in one log line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gateway.core.error import StoreUnavailable
from gateway.core.outbox import Attempt, Claim, DeliveryStatus, Message
from gateway.core.retry import (
    Dead,
    Delivered,
    ErrorKind,
    Outcome,
    RetryAt,
    Schedule,
    Verdict,
    decide,
)
from gateway.core.trace import Span, trace_ids
from gateway.delivery.base import Sink
from gateway.store.outbox import Outbox
from gateway.telemetry.attribute import of_delivery
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer

SEND_MARGIN_SECONDS = 5.0  # beyond a sink's own deadline, well within the lease
FALLBACK_DELAY_SECONDS = 30.0
SETTLE_FIRST_SECONDS = 0.1
SETTLE_MAX_SECONDS = 2.0


class Courier:
    """Makes attempts for one sink; `now` gives epoch seconds, `jitter` a number in [0, 1).

    Where there is a `tracer`, each attempt is a span of the trace that its message belongs to.
    """

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        *,
        now: Callable[[], float],
        jitter: Callable[[], float],
        metrics: Metrics,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._outbox = outbox
        self._sink = sink
        self._now = now
        self._jitter = jitter
        self._metrics = metrics
        self._log = get_logger("delivery")
        self._sending: set[asyncio.Task[object]] = set()
        self._closing = False

    def open(self) -> None:
        """From now on a verdict is offered to the store until the lease ends."""
        self._closing = False

    def close(self) -> None:
        """From now on a verdict that the store does not take at once is given up."""
        self._closing = True

    def abandon(self) -> None:
        """Cancel the attempts under way, but none whose receiver has answered."""
        for task in self._sending:
            task.cancel()

    async def deliver(self, claim: Claim[Message]) -> bool:
        """Make the attempt and settle it; whatever goes wrong, the message is not lost.

        False when the destination failed, as opposed to the store or what was to be sent.
        """
        message = claim.item
        try:
            schedule = await self._schedule(message)
            started_at = self._now()
            span = None if self._tracer is None else _begun(self._tracer, message, started_at)
            if span is not None:  # what the receiver does is this attempt's doing
                message = replace(message, traceparent=span.context.traceparent)
            outcome = await self._send(message)
        except StoreUnavailable as error:
            # Nothing was sent: the message is due again when the lease ends.
            self._metrics.store_errors_total.labels("outbox").inc()
            self._log.warning("delivery_postponed", delivery_id=message.id, error=error.detail)
            return True
        now = self._now()
        verdict = decide(schedule, message.attempt, outcome, now, self._jitter())
        settled = await self._settle(claim, verdict, _attempt(message, started_at, outcome))
        if span is not None and outcome.final_status is DeliveryStatus.EXHAUSTED:  # it was sent
            span.end(now, of_delivery(message, outcome), is_error=not outcome.ok)
        self._measure(message, outcome, verdict, span, settled=settled)
        self._report(message, outcome, verdict, now, settled=settled)
        if settled:
            await self._tell(replace(message, status=_status(verdict)), outcome)
        return outcome.ok or outcome.permanent

    async def _schedule(self, message: Message) -> Schedule:
        try:
            return await self._sink.schedule(message)
        except StoreUnavailable:
            raise
        except Exception:  # noqa: BLE001 - a sink's fault must not cost a message
            self._log.exception("schedule_failed", delivery_id=message.id)
            return Schedule((FALLBACK_DELAY_SECONDS,) * message.attempt)

    async def _send(self, message: Message) -> Outcome:
        loop = asyncio.get_running_loop()
        started = loop.time()
        limit_seconds = self._sink.deadline_seconds + SEND_MARGIN_SECONDS
        task = asyncio.current_task()
        assert task is not None
        self._sending.add(task)
        try:
            async with asyncio.timeout(limit_seconds):
                return await self._sink.send(message)
        except StoreUnavailable:
            raise
        except TimeoutError:
            detail = f"the sink kept no deadline of {limit_seconds:g} s"
            return Outcome(loop.time() - started, ErrorKind.TIMEOUT, detail=detail)
        except Exception as error:  # noqa: BLE001 - a sink's fault must not cost a message
            self._log.exception("delivery_failed", delivery_id=message.id, sink=self._sink.name)
            detail = f"internal error: {type(error).__name__}"
            return Outcome(loop.time() - started, ErrorKind.INTERNAL, detail=detail)
        finally:
            self._sending.discard(task)

    async def _settle(self, claim: Claim[Message], verdict: Verdict, attempt: Attempt) -> bool:
        """Record the verdict, for as long as the lease holds; False when that was not to be."""
        delay = SETTLE_FIRST_SECONDS
        while True:
            try:
                return await self._outbox.settle(claim, verdict, attempt, self._now())
            except StoreUnavailable as error:
                self._metrics.store_errors_total.labels("outbox").inc()
                self._log.warning(
                    "delivery_not_settled", delivery_id=claim.item.id, error=error.detail
                )
            if self._closing or self._now() + delay >= claim.lease_until:
                return False
            await asyncio.sleep(delay)
            delay = min(delay * 2, SETTLE_MAX_SECONDS)

    async def _tell(self, message: Message, outcome: Outcome) -> None:
        try:
            await self._sink.settled(message, outcome)
        except StoreUnavailable as error:
            self._metrics.store_errors_total.labels("webhooks").inc()
            self._log.warning("outcome_not_noted", delivery_id=message.id, error=error.detail)
        except Exception:  # noqa: BLE001 - the delivery itself is settled: only its count is lost
            self._log.exception("outcome_not_noted", delivery_id=message.id)

    def _measure(
        self,
        message: Message,
        outcome: Outcome,
        verdict: Verdict,
        span: Span | None,
        *,
        settled: bool,
    ) -> None:
        sink = self._sink.name
        self._metrics.delivery_attempts_total.labels(sink, _result(outcome)).inc()
        if settled and isinstance(verdict, Delivered):
            latency = max(0.0, self._now() - message.created_at)
            exemplar = None if span is None else span.exemplar
            self._metrics.delivery_latency_seconds.labels(sink).observe(latency, exemplar)

    def _report(
        self, message: Message, outcome: Outcome, verdict: Verdict, now: float, *, settled: bool
    ) -> None:
        log = self._log.warning if isinstance(verdict, Dead) else self._log.info
        log(
            "delivery_attempt",
            delivery_id=message.id,
            sink=message.sink,
            destination=message.destination,
            event_id=message.event_id,
            type=message.kind,
            job_id=message.job_id,
            attempt=message.attempt,
            result=_result(outcome),
            status_code=outcome.status_code,
            detail=outcome.detail,
            duration_seconds=round(outcome.duration_seconds, 6),
            verdict=_status(verdict).value,
            retry_in_seconds=round(verdict.at - now, 3) if isinstance(verdict, RetryAt) else None,
            settled=settled,
            request_id=message.request_id,
            **trace_ids(message.traceparent),
        )


def _begun(tracer: Tracer, message: Message, at: float) -> Span:
    return tracer.resume(
        message.traceparent, message.tracestate, f"{message.sink} {message.kind}", at
    )


def _attempt(message: Message, started_at: float, outcome: Outcome) -> Attempt:
    return Attempt(
        message.id,
        message.attempt,
        started_at,
        outcome.duration_seconds,
        outcome.status_code,
        outcome.error_kind,
        outcome.detail,
        outcome.response_excerpt,
    )


def _result(outcome: Outcome) -> str:
    """A bounded label: `ok`, what the message was not even sent for, or the kind of error."""
    if outcome.error_kind is None:
        return "ok"
    if outcome.final_status is not DeliveryStatus.EXHAUSTED:
        return outcome.final_status.value
    return outcome.error_kind.value


def _status(verdict: Verdict) -> DeliveryStatus:
    match verdict:
        case Delivered():
            return DeliveryStatus.SUCCEEDED
        case RetryAt():
            return DeliveryStatus.RETRYING
        case Dead(status):
            return status
