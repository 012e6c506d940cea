"""The series of the parent of several workers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from gateway.telemetry.merge import Rule


class WorkerMetrics:
    """Counted by the parent, which has these and its own process's alone."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.gauge_rules: dict[str, Rule] = {"gateway_workers_ready": Rule.SUM}
        self.workers_ready = Gauge(
            "gateway_workers_ready",
            "Workers that serve, of several; there is no such series with one.",
            registry=self.registry,
        )
        self.worker_restarts_total = Counter(
            "gateway_worker_restarts_total",
            "Workers started in another's place, by why: died, hung, or reload.",
            ("reason",),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
