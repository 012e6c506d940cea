"""The health of what exports spans: degraded while a collector fails or spans are dropped."""

from __future__ import annotations

from gateway.core.event import rfc3339
from gateway.telemetry.export import Exporter
from gateway.web.health import Check, Reading, Status


def check_tracing(exporter: Exporter) -> Check:
    """Whether the collector takes spans, and how many were lost; since when, if it does not."""
    seen = 0

    async def check() -> Reading:
        nonlocal seen
        state = exporter.state
        lost, seen = state.dropped - seen, state.dropped
        detail = {
            "waiting": state.waiting,
            "dropped": state.dropped,
            "last_dropped_at": _time(state.last_dropped_at),
            "failing_since": _time(state.since),
        }
        if state.error is not None:
            return Reading(Status.DEGRADED, f"the collector: {state.error}", detail)
        if lost:
            return Reading(
                Status.DEGRADED, f"{lost} spans were dropped since the last look", detail
            )
        return Reading(detail=detail)

    return check


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
