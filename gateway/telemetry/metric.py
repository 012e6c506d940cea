"""Every Prometheus series of the gateway, in one place, on a registry of its own.

Labels are bounded: route names, methods, status codes and the words of fixed sets; never an id, a
URL or free text of the upstream.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.telemetry.merge import Rule

OTHER = "other"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ERROR_TYPES = frozenset(
    {
        "external_service_error",
        "insufficient_resources",
        "invalid_video_url",
        "job_lost",
        "network_error",
        "processing_timeout",
        "unknown_error",
        "video_too_large",
    }
)
# Of the library's collector, which each process has one of.
PROCESS_RULES = {
    "process_max_fds": Rule.SUM,
    "process_open_fds": Rule.SUM,
    "process_resident_memory_bytes": Rule.SUM,
    "process_start_time_seconds": Rule.MIN,
    "process_virtual_memory_bytes": Rule.SUM,
}
MAX_STAGES = 32  # distinct stage names a process tells apart

_REQUEST_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STREAM_BUCKETS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200)
_FAN_OUT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_JOB_BUCKETS = (1, 5, 10, 30, 60, 120, 300, 600, 900, 1200, 1800, 2700, 3600, 5400)
_STAGE_BUCKETS = (1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_DELIVERY_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 36000)


def method_label(method: str) -> str:
    """The method, or `OTHER`: clients invent methods."""
    return method if method in METHODS else "OTHER"


def error_type_label(error_type: object) -> str:
    """A known error type of a failed job, or `other`: the upstream may say anything."""
    return error_type if isinstance(error_type, str) and error_type in ERROR_TYPES else OTHER


def render(series: Collector, accept: str = "") -> tuple[str, bytes]:
    """The content type and the exposition: OpenMetrics where `accept` asks for it, else text.

    Source: OpenMetrics 1.0; the Prometheus text exposition format 0.0.4.
    """
    encode, content_type = choose_encoder(accept)
    return content_type, encode(series)


class Series(dict[tuple[str, ...], Histogram]):
    """The series of a histogram by their labels, each found in the library once."""

    def __init__(self, histogram: Histogram) -> None:
        super().__init__()
        self._histogram = histogram

    def __missing__(self, labels: tuple[str, ...]) -> Histogram:
        series = self[labels] = self._histogram.labels(*labels)
        return series


class Tally:
    """A counter of the hot path: no lock, no checks, for it counts in the loop's thread alone.

    What it has counted is added to its series when the metrics are read.
    """

    __slots__ = ("_pending", "_series")

    def __init__(self, series: Counter) -> None:
        self._series = series
        self._pending = 0

    def inc(self) -> None:
        """Count one."""
        self._pending += 1

    def fold(self) -> None:
        """Add what was counted to the series."""
        pending, self._pending = self._pending, 0
        if pending:
            self._series.inc(pending)


class DurationTally:
    """As `Tally`, of a histogram's series: seconds, without an exemplar.

    The library has no way to take in many observations at once, so that its buckets and sum are
    reached below its public surface; tests/unit/telemetry/test_metric.py fails when they change.
    """

    __slots__ = ("_bounds", "_counts", "_series", "_sum")

    def __init__(self, series: Histogram) -> None:
        self._series = series
        self._bounds = tuple(series._upper_bounds)  # noqa: SLF001 - see above
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def fold(self) -> None:
        """Add what was counted to the series."""
        counts, self._counts = self._counts, [0] * len(self._bounds)
        seconds, self._sum = self._sum, 0.0
        if any(counts):
            self._series._sum.inc(seconds)  # noqa: SLF001 - see above
            for bucket, count in zip(self._series._buckets, counts, strict=True):  # noqa: SLF001
                bucket.inc(count)


class _Tallies(Collector):
    """Comes first in a registry, has no series, and folds those of the tallies."""

    def __init__(self) -> None:
        self._counts: dict[Counter, Tally] = {}
        self._durations: dict[Histogram, DurationTally] = {}

    def of(self, series: Counter) -> Tally:
        if series not in self._counts:
            self._counts[series] = Tally(series)
        return self._counts[series]

    def of_durations(self, series: Histogram) -> DurationTally:
        if series not in self._durations:
            self._durations[series] = DurationTally(series)
        return self._durations[series]

    def collect(self) -> Iterable[Metric]:
        for count in self._counts.values():
            count.fold()
        for durations in self._durations.values():
            durations.fold()
        return ()


class Metrics:
    """The series, named as they are exposed without `gateway_`. Durations are seconds.

    Each instance has its own `registry`, so that two gateways (and two tests) share no count.
    `gauge_rules` say, by series, what a gauge is where there are several workers.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tallies = _Tallies()
        self.registry.register(self._tallies)
        self.gauge_rules: dict[str, Rule] = dict(PROCESS_RULES)
        self._stages: set[str] = set()
        self._http()
        self._jobs()
        self._policies()
        self._deliveries()
        self._process()

    def tally(self, counter: Counter, *labels: str) -> Tally:
        """What counts for a series on the hot path."""
        return self._tallies.of(counter.labels(*labels) if labels else counter)

    def duration_tally(self, series: Histogram) -> DurationTally:
        """What observes for a series on the hot path."""
        return self._tallies.of_durations(series)

    def stage_label(self, stage: str) -> str:
        """The stage's name while there are few; `other` once `MAX_STAGES` different ones came."""
        if stage not in self._stages:
            if len(self._stages) >= MAX_STAGES:
                return OTHER
            self._stages.add(stage)
        return stage

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """The content type and the exposition of every series; see `render`."""
        return render(_WithoutCreated(self.registry), accept)

    def _http(self) -> None:
        self.http_request_duration_seconds = self._histogram(
            "http_request_duration_seconds",
            "From a request's first byte in to its response's last byte out; streams apart, "
            "and less what its client wanted to wait (`Prefer: wait`).",
            ("route", "method", "status"),
            _REQUEST_BUCKETS,
        )
        self.http_stream_duration_seconds = self._histogram(
            "http_stream_duration_seconds",
            "How long streamed responses (server-sent events) stayed open.",
            ("route",),
            _STREAM_BUCKETS,
        )
        self.upstream_request_duration_seconds = self._histogram(
            "upstream_request_duration_seconds",
            "From sending a request to the upstream to its response's headers, or the failure.",
            ("route", "outcome"),
            _REQUEST_BUCKETS,
        )
        self.upstream_errors_total = self._counter(
            "upstream_errors_total", "Requests the upstream gave no usable answer to.", ("reason",)
        )
        self.upstream_retries_total = self._counter(
            "upstream_retries_total", "Requests sent to the upstream a second time.", ("reason",)
        )
        self.upstream_breaker_state = self._gauge(
            "upstream_breaker_state",
            "The circuit breaker: 0 closed, 1 half open, 2 open.",
            Rule.MAX,
        )
        self.upstream_connections = self._gauge(
            "upstream_connections",
            "Connections to the upstream that are open, idle ones included.",
            Rule.SUM,
        )
        self.active_connections = self._gauge(
            "active_connections", "Connections of clients that are open.", Rule.SUM
        )
        self.connections_refused_total = self._counter(
            "connections_refused_total", "Connections closed at once: there were too many."
        )

    def _jobs(self) -> None:
        self.job_processing_seconds = self._histogram(
            "job_processing_seconds",
            "From a job's creation to its end.",
            (),
            _JOB_BUCKETS,
        )
        self.job_stage_seconds = self._histogram(
            "job_stage_seconds", "How long jobs spent in a stage.", ("stage",), _STAGE_BUCKETS
        )
        self.jobs_created_total = self._counter(
            "jobs_created_total", "Jobs seen for the first time."
        )
        self.jobs_completed_total = self._counter("jobs_completed_total", "Jobs that completed.")
        self.jobs_failed_total = self._counter(
            "jobs_failed_total", "Jobs that failed.", ("error_type",)
        )
        self.jobs_cancelled_total = self._counter(
            "jobs_cancelled_total", "Jobs that were cancelled."
        )
        self.jobs_active = self._gauge("jobs_active", "Jobs that have not ended.", Rule.MAX)
        self.watch_lag_seconds = self._gauge(
            "watch_lag_seconds",
            "How much later than planned the latest poll of a job was made.",
            Rule.MAX,
        )
        self.watched_jobs = self._gauge(
            "watched_jobs", "Jobs that are watched here, by how.", Rule.SUM, ("source",)
        )
        self.watch_pace = self._gauge(
            "watch_pace",
            "Requests a second that watching may make of the upstream now.",
            Rule.SUM,
        )
        self.watch_backoffs_total = self._counter(
            "watch_backoffs_total",
            "How often watching has slowed down, by what the upstream did.",
            ("reason",),
        )
        self.watch_polls_spared_total = self._counter(
            "watch_polls_spared_total",
            "Times that the upstream's list showed a job as it was, and it was not polled.",
        )
        self.stream_readers = self._gauge(
            "stream_readers",
            "Clients that stream a job from the one observation of it.",
            Rule.SUM,
        )
        self.stream_evictions_total = self._counter(
            "stream_evictions_total", "Clients cut off a job's stream: they read too slowly."
        )
        self.stream_fan_out_seconds = self._histogram(
            "stream_fan_out_seconds",
            "From an event of a job to the last of the clients that stream it.",
            (),
            _FAN_OUT_BUCKETS,
        )
        self.observations_total = self._counter(
            "observations_total",
            "Answers of the upstream read as job observations.",
            ("source", "result"),
        )
        self.observations_refused_total = self._counter(
            "observations_refused_total",
            "Answers, or parts of one, that could not be used.",
            ("reason",),
        )

    def _policies(self) -> None:
        self.auth_decisions_total = self._counter(
            "auth_decisions_total", "Decisions on who may ask.", ("decision",)
        )
        self.rate_limit_decisions_total = self._counter(
            "rate_limit_decisions_total", "Decisions of rate limits.", ("policy", "decision")
        )
        self.cors_decisions_total = self._counter(
            "cors_decisions_total", "Decisions on requests of another origin.", ("decision",)
        )
        self.security_header_decisions_total = self._counter(
            "security_header_decisions_total",
            "Answers seen by security headers in shadow mode, by whether they would change.",
            ("decision",),
        )
        self.validation_decisions_total = self._counter(
            "validation_decisions_total",
            "Decisions on what requests hold: passed, stripped, or the problem they met.",
            ("decision",),
        )
        self.windows_away = self._gauge(
            "windows_away",
            "1 while the shared store of rate windows does not answer, else 0.",
            Rule.MAX,
        )
        self.admission_decisions_total = self._counter(
            "admission_decisions_total",
            "Decisions on creations: is there a place for one more active job.",
            ("decision",),
        )
        self.idempotency_total = self._counter(
            "idempotency_total",
            "Creations with an idempotency key, by what it meant; those that lack a required one.",
            ("result",),
        )
        self.cache_requests_total = self._counter(
            "cache_requests_total",
            "Cacheable requests, by what the response cache did.",
            ("result",),
        )
        self.waits_total = self._counter(
            "waits_total",
            "Polls that would wait for a change (`Prefer: wait`), by what came of it.",
            ("result",),
        )
        self.waiting_requests = self._gauge(
            "waiting_requests", "Polls that wait for a job to change.", Rule.SUM
        )
        self.cache_lookups_total = self._counter(
            "cache_lookups_total",
            "Lookups of the cache's tiers: the second is asked when the first has nothing fresh.",
            ("tier", "result"),
        )
        self.cache_evictions_total = self._counter(
            "cache_evictions_total",
            "Cached answers that went to make room for others.",
            ("tier",),
        )
        self.cache_bytes = self._gauge(
            "cache_bytes", "What cached answers take, with what holds them.", Rule.SUM, ("tier",)
        )
        self.policy_generation = self._gauge(
            "policy_generation",
            "How often the policy files were applied since the start.",
            Rule.MAX,
        )
        self.policies_refused = self._gauge(
            "policies_refused", "1 while the newest policy files are refused, else 0.", Rule.MAX
        )
        self.policy_reloads_total = self._counter(
            "policy_reloads_total", "Changed policy files that were read again.", ("result",)
        )
        self.component_unwell = self._gauge(
            "component_unwell",
            "A component of health when it was last checked: 0 well, 1 degraded, 2 unhealthy.",
            Rule.MAX,
            ("component",),
        )
        self.log_lines_lost_total = self._counter(
            "log_lines_lost_total", "Log lines that never reached their reader."
        )
        self.store_errors_total = self._counter(
            "store_errors_total", "Operations a store did not answer.", ("store",)
        )

    def _deliveries(self) -> None:
        self.delivery_attempts_total = self._counter(
            "delivery_attempts_total", "Attempts to deliver a message.", ("sink", "result")
        )
        self.delivery_latency_seconds = self._histogram(
            "delivery_latency_seconds",
            "From an event to its receiver's acceptance, retries included.",
            ("sink",),
            _DELIVERY_BUCKETS,
        )
        self.outbox_depth = self._gauge(
            "outbox_depth", "Messages not yet delivered.", Rule.MAX, ("sink",)
        )
        self.outbox_oldest_seconds = self._gauge(
            "outbox_oldest_seconds",
            "Age of the oldest message not yet delivered.",
            Rule.MAX,
            ("sink",),
        )
        self.webhook_filter_errors_total = self._counter(
            "webhook_filter_errors_total", "Webhook filters that failed on an event."
        )

    def _process(self) -> None:
        self.event_loop_lag_seconds = self._gauge(
            "event_loop_lag_seconds", "How late the event loop last ran a timer.", Rule.MAX
        )
        self.trace_spans_exported_total = self._counter(
            "trace_spans_exported_total", "Spans that the collector took."
        )
        self.trace_spans_dropped_total = self._counter(
            "trace_spans_dropped_total", "Spans that no collector took, by why.", ("reason",)
        )
        # process_cpu_seconds_total, process_resident_memory_bytes and their siblings.
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"gateway_{name}", documentation, labels, registry=self.registry)

    def _gauge(
        self, name: str, documentation: str, rule: Rule, labels: tuple[str, ...] = ()
    ) -> Gauge:
        """A gauge; `rule` says what it is where there are several workers."""
        self.gauge_rules[f"gateway_{name}"] = rule
        return Gauge(f"gateway_{name}", documentation, labels, registry=self.registry)

    def _histogram(
        self, name: str, documentation: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(
            f"gateway_{name}", documentation, labels, registry=self.registry, buckets=buckets
        )


class _WithoutCreated(Collector):
    """A registry without the `_created` samples: a fifth of the series, and nobody reads them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            family.samples = [
                sample for sample in family.samples if sample.name != f"{family.name}_created"
            ]
            yield family
