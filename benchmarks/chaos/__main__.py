"""python -m benchmarks.chaos: what is lost, of SQLite and of Redis.

`--quick` ends within two minutes; with `--json` the last line is one JSON object. The exit code is
1 when anything was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import orjson

from benchmarks.chaos.story import Plan, run
from benchmarks.ledger import Figures

STORES = ("sqlite", "redis")


def main() -> int:
    arguments = _arguments()
    events = arguments.events or (500 if arguments.quick else 10_000)
    kills = 2 if arguments.quick else 6
    found: dict[str, Figures] = {}
    for store in arguments.store or STORES:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="gateway-chaos-") as folder:
            plan = Plan(store, events, kills, arguments.seed)
            found[store] = asyncio.run(run(plan, Path(folder)))
        _show(store, found[store], time.monotonic() - started, kills)
    if arguments.json:
        print(orjson.dumps({name: asdict(each) for name, each in found.items()}).decode())
    return int(any(each.lost for each in found.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events: within two minutes")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--store", choices=STORES, action="append", help="only this one")
    parser.add_argument("--events", type=int, help="about how many (default: 10000)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _show(store: str, figures: Figures, seconds: float, kills: int) -> None:
    redis = ", Redis once" if store == "redis" else ""
    print(f"{store}: gateways killed with -9 {kills} times{redis}, {seconds:.0f} s")
    for name, value in asdict(figures).items():
        print(f"  {name.replace('_', ' '):12} {value:>9}")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
