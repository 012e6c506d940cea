"""Tracing where the settings name a collector; where they do not, nothing of it is imported."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from gateway.settings.telemetry import Tracing
from gateway.telemetry.export import Exporter
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer


@dataclass(frozen=True, slots=True)
class Traces:
    """What begins spans, and what takes those that have ended."""

    tracer: Tracer
    exporter: Exporter


def traces(
    settings: Tracing, metrics: Metrics, now: Callable[[], float], told: Callable[[], None]
) -> Traces | None:
    """The traces of this process; None without a collector. Raises OSError for a bad `ca`."""
    if settings.endpoint is None:
        return None
    from gateway.telemetry.otlp import OtlpCollector  # noqa: PLC0415 - of the extra `otel`

    exporter = Exporter(OtlpCollector(settings, str(uuid.uuid4())), settings, metrics, now, told)
    return Traces(Tracer(settings.sample_ratio, exporter.record), exporter)
