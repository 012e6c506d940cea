"""Ten thousand jobs watched by one process, with the upstream's list and without it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson

from benchmarks.process import LOAD_CORE, PROXY_CORE, free_port, started
from benchmarks.watch.gateway import Work

BOUND = 200.0
MOVES_SECONDS = 300.0  # from one stage of a job to the next
_WAYS: Mapping[str, dict[str, object]] = {
    "polls alone": {"survey_from": None},
    "with the list": {},
}


def run(folder: Path, jobs: int, settle_seconds: float, seconds: float) -> dict[str, Any]:
    """Figures by way of watching; durations and lags in seconds."""
    return {
        way: _measure(folder / way.replace(" ", "-"), jobs, watch, settle_seconds, seconds)
        for way, watch in _WAYS.items()
    }


def show(found: Mapping[str, Mapping[str, float]], jobs: int) -> None:
    """A line each way."""
    columns = (
        f"{'CPU %':>6} {'req/s':>7} {'max/mean':>9} {'lag p50':>8} {'p99':>7} {'KiB a job':>10}"
    )
    print(f"\n{f'{jobs} jobs':16} {columns}")
    for way, each in found.items():
        print(
            f"{way:16} {100 * each['cpu_share']:6.1f} {each['requests_per_second']:7.1f} "
            f"{each['max_over_mean']:9.2f} {each['lag_p50_seconds']:8.2f} "
            f"{each['lag_p99_seconds']:7.2f} {each['bytes_a_job'] / 1024:10.1f}"
        )


def _measure(
    folder: Path, jobs: int, watch: dict[str, object], settle_seconds: float, seconds: float
) -> dict[str, float]:
    folder.mkdir()
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.watch.upstream", str(port), str(jobs))
    with started((*command, str(MOVES_SECONDS)), port, LOAD_CORE, folder / "upstream.txt"):
        settings = {"source": "poll", "max_per_second": BOUND, **watch}
        work = Work(str(folder), port, PROXY_CORE, jobs, settings, settle_seconds, seconds)
        said = subprocess.run(
            [sys.executable, "-m", "benchmarks.watch.gateway"],
            input=orjson.dumps(asdict(work)),
            stdout=subprocess.PIPE,
            check=True,
            timeout=settle_seconds + seconds + 120,
        )
        with urlopen(f"http://127.0.0.1:{port}/__asked", timeout=10) as answer:
            asked = orjson.loads(answer.read())
    return figures(orjson.loads(said.stdout), asked)


def figures(result: dict[str, float], asked: dict[str, dict[str, int]]) -> dict[str, float]:
    """What was asked in each whole second of the measurement, beside what the gateway says."""
    within = range(int(result.pop("since")) + 1, int(result.pop("until")))
    a_second = [sum(kind.get(str(second), 0) for kind in asked.values()) for second in within]
    lists = sum(asked["list"].get(str(second), 0) for second in within)
    mean = sum(a_second) / len(a_second)
    return {
        **result,
        "requests_per_second": mean,
        "lists_per_second": lists / len(a_second),
        "max_over_mean": max(a_second) / mean,
    }
