"""A load of keep-alive GETs from wrk, and what it measured."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import LOAD_CORE

_VARIED = Path(__file__).parent / "varied.lua"
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_QUANTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", re.MULTILINE)
_REQUESTS = re.compile(r"^\s+(\d+) requests in ([\d.]+)(us|ms|s|m)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to; latencies in seconds."""

    answers: int
    seconds: float
    p50: float
    p99: float


def apply(url: str, key: str, *, connections: int, seconds: float, is_varied: bool = False) -> Load:
    """GET `url` over `connections` connections for some time; raises as `parse` does.

    `is_varied`: no two requests are the same.
    """
    script = ("-s", str(_VARIED)) if is_varied else ()
    done = subprocess.run(
        [
            *("taskset", "-c", str(LOAD_CORE), "wrk", "--latency", "-t", "1"),
            *("-c", str(connections), "-d", f"{max(1, round(seconds))}s"),
            *(*script, "-H", f"X-API-Key: {key}", url),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return parse(done.stdout)


def parse(said: str) -> Load:
    """What wrk printed. Raises RuntimeError when an answer was no 2xx or a socket failed."""
    found = _REQUESTS.search(said)
    quantiles = {name: float(n) * _UNITS[unit] for name, n, unit in _QUANTILE.findall(said)}
    failed = "Non-2xx" in said or "Socket errors" in said
    if failed or found is None or len(quantiles) != 2:
        raise RuntimeError(f"the load did not go well:\n{said}")
    took = float(found[2]) * _UNITS[found[3]]
    return Load(int(found[1]), took, quantiles["50"], quantiles["99"])
