"""python -m benchmarks.soak: half an hour of everything at once over one gateway.

Jobs are created, polled and streamed, their webhooks delivered to receivers of which half are ill,
their rows written to Convex; meanwhile policies are reloaded, the upstream restarts and Redis is
away. `--quick` ends within two minutes; with `--json` the last line is one JSON object. The exit
code is 1 when an event is lost, an error has no outage to explain it, or the process grows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import orjson

from benchmarks.soak.load import Rates
from benchmarks.soak.story import Plan, Report, run

MIB = 1024**2
SECONDS_PER_DISTURBANCE = 30.0
QUICK = Plan(28.0, 8.0, 6, Rates(), seed=1)


def main() -> int:
    """Run, print, and say by the exit code whether it went well."""
    arguments = _arguments()
    plan = QUICK if arguments.quick else _plan(60.0 * arguments.minutes, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as folder:
        report = asyncio.run(run(plan, Path(folder)))
    _show(report)
    if arguments.json:
        print(orjson.dumps(asdict(report)).decode())
    return int(bool(report.failures))


def _plan(seconds: float, seed: int) -> Plan:
    disturbances = max(6, round(seconds / SECONDS_PER_DISTURBANCE))
    return Plan(seconds, max(10.0, seconds / 15), disturbances, Rates(), seed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within two minutes")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--minutes", type=float, default=30.0, help="of load (default: 30)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _show(report: Report) -> None:
    for reason in report.skipped:
        print(f"skipped: {reason}")
    print(f"{report.seconds:.0f} s, {sum(report.requests.values())} requests, {report.jobs} jobs")
    _table("requests", report.requests)
    _table("what happened meanwhile", report.disturbances)
    _table("errors while something was away", report.expected_errors)
    _table("errors that no outage explains", report.unexpected_errors)
    for example in report.examples:
        print(f"    {example}")
    _table("events", asdict(report.events))
    if report.convex_behind is not None:
        print(f"  {'not in Convex to their end':28} {report.convex_behind:>10}")
    print(f"{'':30} {'start':>10} {'end':>10} {'peak':>10}")
    start, end = report.start, report.end
    peak_memory = report.peak_memory_bytes / MIB
    _row("memory, MiB", start.memory_bytes / MIB, end.memory_bytes / MIB, peak_memory)
    _row("of it stored answers, MiB", start.cached_bytes / MIB, end.cached_bytes / MIB)
    _row("descriptors", start.descriptors, end.descriptors, report.peak_descriptors)
    _table("event loop late by", asdict(report.lag))
    for failure in report.failures:
        print(f"FAILED: {failure}")
    sys.stdout.flush()


def _row(name: str, *values: float) -> None:
    print(f"  {name:28}" + "".join(f" {round(each, 1):>10}" for each in values))


def _table(title: str, values: Mapping[str, float]) -> None:
    print(title)
    for name, value in values.items():
        print(f"  {name.replace('_', ' '):28} {round(value, 4):>10}")


if __name__ == "__main__":
    raise SystemExit(main())
