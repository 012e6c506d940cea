"""The series: named, helped, bounded, and readable by both kinds of scraper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.telemetry.metric import (
    ERROR_TYPES,
    MAX_STAGES,
    Metrics,
    error_type_label,
    method_label,
)

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
SERIES = {
    "gateway_active_connections": (),
    "gateway_cache_requests_total": ("result",),
    "gateway_cache_evictions_total": ("tier",),
    "gateway_cache_lookups_total": ("tier", "result"),
    "gateway_cache_bytes": ("tier",),
    "gateway_delivery_attempts_total": ("sink", "result"),
    "gateway_delivery_latency_seconds": ("sink",),
    "gateway_event_loop_lag_seconds": (),
    "gateway_http_request_duration_seconds": ("route", "method", "status"),
    "gateway_http_stream_duration_seconds": ("route",),
    "gateway_job_processing_seconds": (),
    "gateway_job_stage_seconds": ("stage",),
    "gateway_jobs_active": (),
    "gateway_jobs_cancelled_total": (),
    "gateway_jobs_completed_total": (),
    "gateway_jobs_created_total": (),
    "gateway_jobs_failed_total": ("error_type",),
    "gateway_observations_refused_total": ("reason",),
    "gateway_observations_total": ("source", "result"),
    "gateway_outbox_depth": ("sink",),
    "gateway_outbox_oldest_seconds": ("sink",),
    "gateway_policy_generation": (),
    "gateway_rate_limit_decisions_total": ("policy", "decision"),
    "gateway_store_errors_total": ("store",),
    "gateway_upstream_errors_total": ("reason",),
    "gateway_upstream_request_duration_seconds": ("route", "outcome"),
    "gateway_watch_backoffs_total": ("reason",),
    "gateway_watch_lag_seconds": (),
    "gateway_watch_pace": (),
    "gateway_watch_polls_spared_total": (),
    "gateway_watched_jobs": ("source",),
    "gateway_webhook_filter_errors_total": (),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_series_is_an_attribute_with_its_labels(name: str) -> None:
    series = getattr(Metrics(), name.removeprefix("gateway_"))

    assert series._labelnames == SERIES[name]


def test_every_family_has_a_help_text_and_the_gateways_name() -> None:
    for family in parse_text(Metrics().render()[1].decode()):
        assert family.documentation
        assert family.name.startswith(("gateway_", "process_"))


def test_memory_and_cpu_of_the_process_are_there() -> None:
    exposition = Metrics().render()[1].decode()

    assert "\nprocess_resident_memory_bytes " in exposition
    assert "\nprocess_cpu_seconds_total " in exposition


def test_text_is_the_default() -> None:
    metrics = Metrics()
    metrics.jobs_created_total.inc()

    content_type, body = metrics.render("*/*")

    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\ngateway_jobs_created_total 1.0\n" in body


def test_openmetrics_comes_when_accepted() -> None:
    content_type, body = Metrics().render(OPENMETRICS)

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    assert {"gateway_jobs_created", "gateway_jobs_active"} <= {family.name for family in families}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_creation_times_are_left_out_and_jobs_created_is_not(accept: str) -> None:
    body = Metrics().render(accept)[1].decode()

    samples = [line.split()[0] for line in body.splitlines() if not line.startswith("#")]
    assert "gateway_jobs_created_total" in samples
    assert not [name for name in samples if name.endswith("_created")]


def test_two_gateways_share_no_count() -> None:
    first, second = Metrics(), Metrics()
    first.jobs_completed_total.inc()

    assert b"\ngateway_jobs_completed_total 0.0\n" in second.render()[1]


@pytest.mark.parametrize(
    ("method", "label"), [("GET", "GET"), ("DELETE", "DELETE"), ("BREW", "OTHER"), ("get", "OTHER")]
)
def test_an_invented_method_is_other(method: str, label: str) -> None:
    assert method_label(method) == label


def test_a_known_error_type_is_its_own_label() -> None:
    assert {error_type_label(name) for name in ERROR_TYPES} == ERROR_TYPES


@pytest.mark.parametrize("error_type", ["https://x/1", "", None, 3, ["job_lost"]])
def test_any_other_error_type_is_other(error_type: object) -> None:
    assert error_type_label(error_type) == "other"


def test_stages_beyond_the_bound_are_other() -> None:
    metrics = Metrics()
    names = [metrics.stage_label(f"stage {number}") for number in range(MAX_STAGES + 5)]

    assert names[MAX_STAGES:] == ["other"] * 5
    assert metrics.stage_label("stage 0") == "stage 0"
    assert len(set(names)) == MAX_STAGES + 1


@given(st.lists(st.floats(0, 120)), st.lists(st.floats(0, 120)))
def test_durations_of_the_hot_path_are_those_observed(
    first: list[float], more: list[float]
) -> None:
    plain, tallied = Metrics(), Metrics()
    labels = ("other", "GET", "200")
    series = tallied.http_request_duration_seconds.labels(*labels)
    expected = plain.http_request_duration_seconds.labels(*labels)
    for seconds in (*first, *more):
        expected.observe(seconds)
    for seconds in first:
        tallied.duration_tally(series).observe(seconds)
    tallied.render()  # what was read counts once
    for seconds in more:
        tallied.duration_tally(series).observe(seconds)

    assert _buckets(tallied) == _buckets(plain)
    assert _value(tallied, "sum") == pytest.approx(_value(plain, "sum"))


def test_counts_of_the_hot_path_are_read_once() -> None:
    metrics = Metrics()
    tally = metrics.tally(metrics.cache_requests_total, "hit")
    for _ in range(3):
        tally.inc()
    metrics.render()
    metrics.tally(metrics.cache_requests_total, "hit").inc()
    metrics.cache_requests_total.labels("hit").inc()

    value = metrics.registry.get_sample_value("gateway_cache_requests_total", {"result": "hit"})
    assert value == 5


def _buckets(metrics: Metrics) -> list[float]:
    return [
        sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "gateway_http_request_duration_seconds_bucket"
    ]


def _value(metrics: Metrics, which: str) -> float | None:
    labels = {"route": "other", "method": "GET", "status": "200"}
    name = f"gateway_http_request_duration_seconds_{which}"
    return metrics.registry.get_sample_value(name, labels) or 0.0
