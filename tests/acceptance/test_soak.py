"""`make soak ARGS='--quick --json'`: mixed load under outages loses nothing and leaves nothing."""

from __future__ import annotations

import sys
import time
from asyncio.subprocess import PIPE, create_subprocess_exec

import orjson
import pytest

from tests.support.convex import require_server
from tests.support.system import ROOT

LIMIT_SECONDS = 120.0


@pytest.mark.timeout(LIMIT_SECONDS + 10)
async def test_quick_run_loses_nothing_and_leaves_nothing_behind() -> None:
    require_server()
    started = time.monotonic()
    process = await create_subprocess_exec(
        sys.executable, "-m", "benchmarks.soak", "--quick", "--json", cwd=ROOT, stdout=PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    assert time.monotonic() - started < LIMIT_SECONDS
    report = orjson.loads(output.splitlines()[-1])
    assert report["failures"] == []
    assert report["skipped"] == []
    assert report["unexpected_errors"] == {}
    assert report["events"]["sent"] == report["events"]["delivered"] > 100
    assert report["events"]["lost"] == report["convex_behind"] == 0
    assert report["disturbances"] == {
        "policy reloads": 3,
        "policy reloads refused": 1,
        "upstream restarts": 1,
        "Redis outages": 1,
        "Redis pauses": 1,
    }
    assert min(report["requests"].values()) > 0
    assert report["expected_errors"]  # what was away was missed
