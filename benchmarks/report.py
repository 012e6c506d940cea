"""Results as a table, and as `benchmarks/results/latest.json`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from benchmarks.peer import PEERS

LATEST = Path(__file__).parent / "results" / "latest.json"


def write(results: Mapping[str, Any]) -> None:
    """Replace what was measured anew; other sections stay as they were, each with its own date."""
    known = orjson.loads(LATEST.read_bytes()) if LATEST.exists() else {}
    about = {"date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "machine": _machine()}
    for name, section in results.items():
        known[name] = section
        known.setdefault("measured", {})[name] = about
    known["versions"] = {"python": platform.python_version(), **_versions()}
    LATEST.parent.mkdir(exist_ok=True)
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    LATEST.write_bytes(orjson.dumps(known, option=options))


def show(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """One table a row of work."""
    memory = found["memory"]
    for row, sides in found.items():
        if row == "memory":
            continue
        print(
            f"\n{row:15} {'CPU us/req':>11} {'spread':>7} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8}"
        )
        for name, each in sides.items():
            print(
                f"{name:15} {each['cpu_microseconds']:11.1f} {each['cpu_spread_percent']:6.0f}% "
                f"{each['per_second']:8.0f} {each['p50_seconds'] * 1e3:8.3f} "
                f"{each['p99_seconds'] * 1e3:8.3f}"
            )
    print(f"\n{'memory':15} {'at rest MiB':>11} {'after load MiB':>15}")
    for name, each in memory.items():
        rest, loaded = each["at_rest_bytes"] / 2**20, each["after_load_bytes"] / 2**20
        print(f"{name:15} {rest:11.1f} {loaded:15.1f}")


def show_mapping(title: str, values: Mapping[str, float], form: str = "10.3f") -> None:
    """Names and figures, a line each."""
    print(f"\n{title}")
    for name, value in values.items():
        print(f"{name:28} {value:{form}}")


def _machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}


def _versions() -> dict[str, str]:
    found = {}
    for peer in PEERS:
        try:
            found[peer.name] = peer.version()
        except LookupError:
            continue  # said already, when it was to be started
    return found
