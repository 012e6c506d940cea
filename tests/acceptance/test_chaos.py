"""`make chaos ARGS='--quick --json'`: misbehaving receivers and kill -9 lose no event."""

from __future__ import annotations

import sys
import time
from asyncio.subprocess import PIPE, create_subprocess_exec

import orjson
import pytest

from tests.support.system import ROOT

LIMIT_SECONDS = 120.0


@pytest.mark.timeout(LIMIT_SECONDS + 10)
async def test_quick_run_loses_nothing_and_ends_in_time() -> None:
    started = time.monotonic()
    process = await create_subprocess_exec(
        sys.executable, "-m", "benchmarks.chaos", "--quick", "--json", cwd=ROOT, stdout=PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    assert time.monotonic() - started < LIMIT_SECONDS
    figures = orjson.loads(output.splitlines()[-1])
    assert set(figures) == {"sqlite", "redis"}
    for store, found in figures.items():
        assert found["sent"] > 200, store
        assert found["delivered"] == found["sent"], store
        assert found["lost"] == 0, store
        assert found["duplicates"] < found["sent"] / 10, store
        assert 0 < found["p50_seconds"] <= found["p99_seconds"], store
