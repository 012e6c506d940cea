"""The figures of docs/scaling.md as Markdown: `python -m benchmarks.scale` prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.scale.model import FILL, REPLICA_MEMORY_BYTES, Costs, Load, Need, costs_of, need

LOADS = (
    Load("10 requests/s", 10, live_jobs=100, streams=20, keys=100, webhooks=20),
    Load("1,000 requests/s", 1_000, live_jobs=5_000, streams=1_000),
    Load("100,000 requests/s", 100_000, live_jobs=100_000, streams=20_000, keys=100_000),
    Load("a million live jobs", 20_000, live_jobs=1_000_000, streams=100_000, keys=100_000),
)
KIB, MIB, GIB = 1024, 1024**2, 1024**3


def tables(results: Mapping[str, Any]) -> str:
    """All of them, from `latest.json`. Raises KeyError for a section that was not measured."""
    measured = results["scale"]
    costs = costs_of(results["rows"], results["idle_stream_bytes"]["gateway"], measured)
    parts = {
        "What each holds": _held(measured["held"], costs),
        "What Redis does": _redis(measured),
        "Where each is full": _full(results["rows"], costs),
        "What a load needs": _needs([need(load, costs) for load in LOADS]),
    }
    return "\n".join(f"## {title}\n\n{table}" for title, table in parts.items()) + "\n"


def _held(held: Mapping[str, float], costs: Costs) -> str:
    rows = [
        ("a process at rest", f"{held['rest_bytes'] / MIB:.0f} MiB", ""),
        (
            "a live job that it watches",
            _kib(costs.live_job_memory),
            _kib(costs.redis_live_job_memory),
        ),
        ("a live job that another watches", _kib(costs.known_job_memory), ""),
        ("an ended job, its timeline and deliveries", "", _kib(costs.redis_job_memory)),
        ("a stream", _kib(costs.stream_memory), ""),
        ("a webhook", "", _kib(costs.redis_webhook_memory)),
        ("a cached answer", _kib(held["answer_bytes"]), ""),
        ("a key", _kib(held["key_bytes"]), _kib(held["key_redis_bytes"])),
        ("a rate window", "", _kib(costs.redis_window_memory)),
    ]
    return _table(("", "a replica", "Redis"), rows)


def _redis(measured: Mapping[str, Mapping[str, float]]) -> str:
    names = {
        "cached": "a request answered from memory",
        "proxied": "a request that is proxied",
        "job": f"a job of {measured['job']['events']:.0f} events and "
        f"{measured['job']['deliveries']:.0f} deliveries",
        "live_job_second": "a second of a live job",
        "notice": "a replica reading a job that another changed",
        "idle_second": "a second of a replica at rest",
    }
    rows = []
    for section, name in names.items():
        each = measured[section]
        rows.append(
            (
                name,
                f"{each['calls']:.1f}" if "calls" in each else "1",
                f"{each['commands']:.1f}" if "commands" in each else "",
                f"{each['received_bytes']:,.0f}",
                f"{each['sent_bytes']:,.0f}",
                f"{each['redis_cpu_microseconds']:,.0f}",
                f"{each['gateway_cpu_microseconds']:,.0f}",
            )
        )
    head = ("", "calls", "commands in scripts", "bytes in", "bytes out", "its CPU µs", "our CPU µs")
    return _table(head, rows)


def _full(rows: Mapping[str, Mapping[str, Mapping[str, float]]], costs: Costs) -> str:
    free = REPLICA_MEMORY_BYTES * FILL - costs.rest_memory
    memory = f"{FILL:.0%} of {REPLICA_MEMORY_BYTES // MIB} MiB"
    found = [
        ("a replica, from memory", f"{rows['cached']['gateway']['per_second']:,.0f} requests/s"),
        ("a replica, proxied", f"{rows['proxied']['gateway']['per_second']:,.0f} requests/s"),
        ("a replica, one core", f"{1e6 / costs.job_cpu:,.0f} jobs/s from creation to delivery"),
        (f"a replica, {memory}", f"{free / costs.live_job_memory:,.0f} live jobs"),
        (f"a replica, {memory}", f"{free / costs.stream_memory:,.0f} streams"),
        ("a node of Redis", f"{1e6 / costs.redis_cached_cpu:,.0f} requests/s"),
        ("a node of Redis", f"{1e6 / costs.redis_job_cpu:,.0f} jobs/s"),
        ("a node of Redis", f"{1e6 / costs.redis_idle_cpu:,.0f} replicas at rest"),
    ]
    return _table(("what", "is full at"), found)


def _needs(needs: Sequence[Need]) -> str:
    head = (
        "",
        "groups",
        "replicas",
        "bound by",
        "their cores",
        "Redis nodes",
        "their cores",
        "their data",
    )
    rows = [
        (
            each.load.name,
            f"{each.groups:,}",
            f"{each.replicas:,}",
            each.bound,
            f"{each.gateway_cores:,.1f}",
            f"{each.redis_nodes:,}",
            f"{each.redis_cores:,.2f}",
            f"{each.redis_memory_bytes / GIB:,.1f} GiB",
        )
        for each in needs
    ]
    return _table(head, rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "".join([_row(head), _row(("---",) * len(head)), *map(_row, rows)])


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |") + "\n"


def _kib(count: float) -> str:
    return f"{count / KIB:,.1f} KiB"
