"""From a job's change being observed to its receiver having it, over the durable SQLite outbox.

The gateway's parts run on one core, the receivers on the other; both clocks are the machine's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from benchmarks.delivery.gateway import Work

GATEWAY_CORE, RECEIVER_CORE = 0, 1
RATES = (200.0, 1000.0)
GROWTH = (10, 100, 1000, 10_000)
BACKLOG = 100_000


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - the sections' common shape
    """Latencies in seconds: by rate, by how many webhooks there are, and behind a backlog."""
    seconds = 3.0 if quick else 20.0
    growth = (10, 1000) if quick else GROWTH
    backlog = 10_000 if quick else BACKLOG
    return {
        "per_second": {f"{rate:g}": measure(rate, seconds) for rate in RATES},
        "webhooks": {str(n): measure(200.0, seconds, webhooks=n) for n in growth},
        "backlog": {str(backlog): measure(200.0, seconds, backlog=backlog)},
    }


def measure(
    per_second: float, seconds: float, *, webhooks: int = 10, backlog: int = 0
) -> dict[str, float]:
    """One run: quantiles of the time from observation to receipt, and what came twice or never."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        receiver = _start("benchmarks.delivery.receiver", str(RECEIVER_CORE))
        try:
            work = Work(
                folder=folder,
                port=int(_line(receiver)),
                core=GATEWAY_CORE,
                events=int(per_second * seconds),
                per_second=per_second,
                webhooks=webhooks,
                backlog=backlog,
            )
            gateway = _start("benchmarks.delivery.gateway")
            said = orjson.loads(_ask(gateway, orjson.dumps(asdict(work)).decode()))
            received = orjson.loads(_ask(receiver, "end"))
        finally:
            receiver.kill()
            receiver.wait()
    cpu_microseconds = said["cpu_seconds"] / len(said["observed"]) * 1e6
    return {**_figures(said["observed"], received), "cpu_microseconds": cpu_microseconds}


def _figures(observed: dict[str, float], received: dict[str, list[float]]) -> dict[str, float]:
    took = sorted(received[event][0] - at for event, at in observed.items() if event in received)
    return {
        "events": len(observed),
        "lost": len(observed) - len(took),
        "duplicates": sum(len(times) - 1 for times in received.values()),
        "p50_seconds": took[len(took) // 2],
        "p99_seconds": took[len(took) * 99 // 100],
        "max_seconds": took[-1],
    }


def _start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    if not (line := process.stdout.readline()):
        raise RuntimeError(f"{process.args!r} ended with code {process.wait()}")
    return line


def _ask(process: subprocess.Popen[str], question: str) -> str:
    assert process.stdin is not None
    process.stdin.write(question + "\n")
    process.stdin.flush()
    answer = _line(process)
    process.wait()
    return answer
