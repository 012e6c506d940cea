"""python -m benchmarks [--quick]: CPU time a request, proxied, cached, and the upstream alone.

Ratios hold on a noisy machine, absolute figures do not: the sides run in turn, and the median of
the rounds is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from pathlib import Path

import psutil

from benchmarks.load import apply
from tests.support.system import KEY, AnalysisApi, GatewayProcess, eventually

CONNECTIONS = 32


async def _measure(pid: int, url: str, requests: int) -> tuple[float, float, float]:
    """CPU microseconds a request of process `pid`, and p50 and p99 in milliseconds."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    load = await apply(url, {"X-API-Key": KEY}, connections=CONNECTIONS, requests=requests)
    after = process.cpu_times()
    if load.failures:
        raise RuntimeError(f"{load.failures} of {load.answers} answers of {url} were no 2xx")
    spent = after.user + after.system - before.user - before.system
    return spent / load.answers * 1e6, load.quantile(0.5) * 1e3, load.quantile(0.99) * 1e3


async def _run(rounds: int, requests: int) -> None:
    unlimited = {
        "rate_limits": {
            "limits": {"default-per-key": {"limit": 10**9, "window": "60s", "by": ["key"]}}
        }
    }
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        async with (
            AnalysisApi(speed=1000) as api,
            GatewayProcess(Path(folder), api.url, policies=unlimited) as gateway,
        ):
            job_id = await gateway.create()
            await eventually("the job ends", lambda: gateway.ended(job_id))
            sides = {
                "upstream alone": (api.pid, f"{api.url}/api/v1/test"),
                "proxied": (gateway.pid, f"{gateway.public}/api/v1/test"),
                "cached status": (gateway.pid, f"{gateway.public}/api/v1/analysis/{job_id}/status"),
            }
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, (pid, url) in sides.items():
                    found[name].append(await _measure(pid, url, requests))
    base = statistics.median(cpu for cpu, _, _ in found["upstream alone"])
    print(f"{'':16} {'CPU us/request':>14} {'ratio':>6} {'p50 ms':>8} {'p99 ms':>8}")
    for name, results in found.items():
        cpu, p50, p99 = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"{name:16} {cpu:14.0f} {cpu / base:6.2f} {p50:8.2f} {p99:8.2f}")


def main() -> None:
    """Run every measurement and print one table."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, within a minute")
    arguments = parser.parse_args()
    asyncio.run(_run(*((3, 3200) if arguments.quick else (7, 9600))))


if __name__ == "__main__":
    main()
