"""`gateway demo` as a newcomer runs it: it plays once, and its exit code says how it went."""

from __future__ import annotations

import asyncio
import sys

import orjson
import pytest

from tests.support.convex import obstacle
from tests.support.system import ROOT, clean_environment

FIELDS = {"job_state", "events", "deliveries_verified", "convex_state", "seconds"}


@pytest.mark.timeout(120)
async def test_demo_ends_well_and_sums_up_what_happened() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "demo", "--once", "--json"),
        cwd=ROOT,
        env=clean_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()

    assert process.returncode == 0, (out[-3000:], err[-3000:])
    lines = out.decode().strip().splitlines()
    summary = orjson.loads(lines[-1])
    assert summary.keys() >= FIELDS
    assert summary["job_state"] == "completed"
    assert summary["failed_job_state"] == "failed"
    assert summary["events"][0] == "job.started"
    assert summary["events"][-1] == "job.completed"
    assert summary["events"].count("job.completed") == 1
    assert "job.progress" in summary["events"]
    assert summary["deliveries_verified"] == summary["deliveries"] >= len(summary["events"])
    assert summary["retried"] == 2
    convex = "completed" if obstacle() is None else "not configured"
    assert summary["convex_state"] == convex
    assert summary["seconds"] > 0
    # It shows a person what happens: deliveries, the failing job, Convex, the metrics.
    shown = "\n".join(lines[:-1])
    for word in ("job.completed", "job.failed", "Convex", "delivery attempts"):
        assert word in shown
    assert "\x1b[" not in out.decode()  # no colours where no terminal is
