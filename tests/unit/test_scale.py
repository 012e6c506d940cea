"""The arithmetic of docs/scaling.md: what it adds up, what bounds it, and when it splits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale.model import (
    FILL,
    LEAST_REPLICAS,
    NOTICE_READS,
    REDIS_CALL_MICROSECONDS,
    REPLICA_MEMORY_BYTES,
    Costs,
    Load,
    costs_of,
    need,
)
from benchmarks.scale.table import LOADS, tables

QUIET = Load("quiet", 0, live_jobs=1, streams=0, keys=0, webhooks=0)


def costs(**figures: float) -> Costs:
    """Nothing costs anything but what is named; a job has ten events."""
    none = dict.fromkeys(Costs.__dataclass_fields__, 0.0)
    return Costs(**(none | {"job_events": 10.0} | figures))


def results() -> dict[str, Any]:
    """As latest.json has them: every figure is 1 but those that tests look at."""
    spent = dict.fromkeys(
        (
            "calls",
            "commands",
            "received_bytes",
            "sent_bytes",
            "redis_cpu_microseconds",
            "gateway_cpu_microseconds",
        ),
        1.0,
    )
    held = dict.fromkeys(
        (
            "rest_bytes",
            "live_job_bytes",
            "known_job_bytes",
            "live_job_redis_bytes",
            "answer_bytes",
            "key_bytes",
            "key_redis_bytes",
            "webhook_redis_bytes",
            "window_redis_bytes",
        ),
        1024.0,
    )
    row = {"gateway": {"cpu_microseconds": 50.0, "per_second": 10_000.0}}
    sections = ("cached", "proxied", "live_job_second", "idle_second", "notice")
    job = spent | {"events": 10.0, "deliveries": 5.0, "redis_memory_bytes": 2048.0}
    scale = {name: dict(spent) for name in sections} | {"job": job, "held": held}
    return {
        "rows": {"cached": row, "proxied": row},
        "idle_stream_bytes": {"gateway": 4096.0},
        "scale": scale,
    }


def test_no_load_still_has_a_replica_to_spare() -> None:
    found = need(QUIET, costs())

    assert (found.replicas, found.bound, found.redis_nodes) == (LEAST_REPLICAS, "availability", 1)


def test_requests_fill_cores_to_the_share_that_leaves_room() -> None:
    load = replace(QUIET, requests_per_second=60_000, cached_share=0.5)

    found = need(load, costs(cached_cpu=50.0, proxied_cpu=150.0))

    assert found.gateway_cores == pytest.approx(6.0)
    assert (found.replicas, found.bound) == (round(6 / FILL), "CPU")


def test_streams_fill_memory() -> None:
    each = FILL * REPLICA_MEMORY_BYTES / 100

    found = need(replace(QUIET, streams=1000), costs(stream_memory=each))

    assert (found.replicas, found.bound) == (10, "memory")


def test_job_with_more_events_costs_more_in_proportion() -> None:
    load = replace(QUIET, live_jobs=1000, job_seconds=100.0, job_events=20.0)

    found = need(load, costs(job_cpu=1e5, redis_job_cpu=1e4))

    assert found.gateway_cores == pytest.approx(10 * 2 * 0.1)
    assert found.redis_cores == pytest.approx(10 * 2 * 0.01)


def test_ended_jobs_are_kept_for_their_days() -> None:
    load = replace(QUIET, live_jobs=100, job_seconds=100.0, job_events=10.0, kept_days=2.0)

    assert need(load, costs(redis_job_memory=1.0)).redis_memory_bytes == 2 * 86_400


def test_replicas_that_hear_of_too_many_changes_are_split_into_groups() -> None:
    load = replace(QUIET, live_jobs=10_000, job_seconds=100.0, job_events=10.0)  # 1,000 changes/s

    assert need(load, costs(notice_cpu=100.0)).groups == 1
    assert need(load, costs(notice_cpu=1_000.0)).groups == 4


def test_jobs_that_every_replica_must_know_are_split_when_they_fill_one() -> None:
    load = replace(QUIET, live_jobs=100_000)

    found = need(load, costs(known_job_memory=REPLICA_MEMORY_BYTES / 50_000))

    assert found.groups == 4
    assert found.replicas == 4 * LEAST_REPLICAS


def test_load_that_no_split_makes_bearable_is_refused() -> None:
    with pytest.raises(ValueError, match="no number of groups takes quiet"):
        need(QUIET, costs(idle_cpu=1e6))


@given(st.floats(1, 1e5), st.integers(1, 100_000), st.floats(1.0, 4.0))
def test_more_of_everything_never_takes_less(rate: float, jobs: int, times: float) -> None:
    prices = costs_of(*_arguments(results()))
    less = Load("less", rate, live_jobs=jobs, streams=jobs)
    more = Load("more", rate * times, live_jobs=int(jobs * times), streams=int(jobs * times))

    below, above = need(less, prices), need(more, prices)

    assert below.gateway_cores <= above.gateway_cores * (1 + 1e-9)
    assert below.redis_memory_bytes <= above.redis_memory_bytes * (1 + 1e-9)


def test_costs_are_taken_from_the_results() -> None:
    found = costs_of(*_arguments(results()))

    assert found.cached_cpu == 50.0 + REDIS_CALL_MICROSECONDS
    assert found.notice_cpu == NOTICE_READS * 1.0
    assert found.stream_memory == 4096.0


def test_section_that_was_not_measured_is_named() -> None:
    known = results()
    del known["scale"]["notice"]

    with pytest.raises(KeyError, match="notice"):
        costs_of(*_arguments(known))


def test_tables_have_every_load() -> None:
    page = tables(results())

    assert all(f"| {load.name} |" in page for load in LOADS)
    assert page.count("\n## ") + page.startswith("## ") == 4


def _arguments(known: dict[str, Any]) -> tuple[Any, float, Any]:
    return known["rows"], known["idle_stream_bytes"]["gateway"], known["scale"]
