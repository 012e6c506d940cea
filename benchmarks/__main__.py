"""python -m benchmarks [--quick] [SECTION ...]: measurements beside peers, never tests.

Without a section all of them run. Results go to `benchmarks/results/latest.json` as well.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import (
    chain,
    convex,
    fan_out,
    footprint,
    polls,
    report,
    side_by_side,
    stream,
    webhooks,
)
from benchmarks.scale import measure as scale
from benchmarks.watch import measure


def _peers(folder: Path, *, quick: bool) -> dict[str, Any]:
    """The gateway, nginx, HAProxy, Envoy and a plain aiohttp proxy side by side."""
    found = side_by_side.compare(folder, *((3, 1) if quick else (9, 3)))
    ratios = side_by_side.ratios(found)
    report.show(found)
    report.show_mapping("ratios: the gateway's over the other's", ratios)
    return {"rows": found, "ratios": ratios}


def _streams(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Memory of idle streams."""
    found = stream.idle(folder, 200 if quick else 1000)
    report.show_mapping("bytes an idle stream", found, "10.0f")
    return {"idle_stream_bytes": found}


def _fan_out(folder: Path, *, quick: bool) -> dict[str, Any]:
    """One job's stream read by many clients."""
    clients = 200 if quick else 1000
    found = fan_out.run(folder, clients, *((1, 5.0) if quick else (5, 10.0)))
    fan_out.show(found, clients)
    return {"fan_out": found}


def _polls(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Ten thousand clients that poll a hundred jobs, and wait for them."""
    found = polls.run(folder, *((1_000, 10, 10.0) if quick else (10_000, 100, 30.0)))
    polls.show(found)
    return {"polls": found}


def _footprint(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Time to ready, memory, descriptors; the image's size, which takes minutes, unless quick."""
    sides = footprint.run(
        folder, **({"starts": 3, "seconds": 2} if quick else {"starts": 9, "seconds": 10})
    )
    loaded = footprint.imports(3 if quick else 9)
    footprint.show(sides)
    report.show_mapping("imports", loaded)
    found: dict[str, Any] = {"sides": sides, "imports": loaded}
    if not quick and (size := footprint.image_size(folder)):
        report.show_mapping("image", size, "10.0f")
        found["image"] = size
    return {"footprint": found}


def _policies(folder: Path, *, quick: bool) -> dict[str, Any]:  # noqa: ARG001 - needs no files
    """What each policy costs, on a chain in this process."""
    found = chain.run(*((5, 500) if quick else (15, 2_000)))
    chain.show(found)
    return {"policy_microseconds": found}


def _webhooks(_folder: Path, *, quick: bool) -> dict[str, Any]:
    """From a job's change to its receiver, over the durable outbox."""
    found = webhooks.run(quick)
    for by, rows in found.items():
        for name, figures in rows.items():
            report.show_mapping(f"webhooks, {by} {name}", figures, "10.4f")
    return {"webhooks": found}


def _convex(_folder: Path, *, quick: bool) -> dict[str, Any]:
    """Progress updates with coalescing, catching up, and histories from the cache."""
    found = convex.run(quick)
    report.show_mapping("convex", found["convex"])
    return found


def _watch(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Thousands of jobs watched by one process."""
    jobs, settle, seconds = (1000, 15.0, 15.0) if quick else (10_000, 90.0, 60.0)
    found = measure.run(folder, jobs, settle, seconds)
    measure.show(found, jobs)
    return {"watch": found}


def _scale(folder: Path, *, quick: bool) -> dict[str, Any]:
    """What a replica and its Redis spend on requests and jobs: docs/scaling.md counts with it."""
    found = scale.run(folder, scale.QUICK if quick else scale.FULL)
    for name, figures in found.items():
        report.show_mapping(f"scale, {name}", figures, "12.2f")
    return {"scale": found}


SECTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "convex": _convex,
    "fanout": _fan_out,
    "footprint": _footprint,
    "peers": _peers,
    "policies": _policies,
    "polls": _polls,
    "scale": _scale,
    "streams": _streams,
    "watch": _watch,
    "webhooks": _webhooks,
}


def main() -> None:
    """Run the sections and print their tables."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if arguments.sections != ["policies"] and shutil.which("wrk") is None:
        parser.error("wrk is not installed (Debian: apt-get install wrk)")
    results: dict[str, Any] = {}
    for name in arguments.sections or tuple(SECTIONS):
        with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
            results |= SECTIONS[name](Path(folder), quick=arguments.quick)
    report.write(results)


if __name__ == "__main__":
    main()
