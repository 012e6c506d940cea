"""`make chaos ARGS='--quick --json'`: misbehaving receivers and kill -9 lose no event."""

from __future__ import annotations

import pytest

from tests.support.quick_run import quick_run

LIMIT_SECONDS = 120.0


@pytest.mark.timeout(LIMIT_SECONDS + 10)
async def test_quick_run_loses_nothing_and_ends_in_time() -> None:
    figures = await quick_run("benchmarks.chaos", LIMIT_SECONDS)
    assert set(figures) == {"sqlite", "redis"}
    for store, found in figures.items():
        assert found["sent"] > 200, store
        assert found["delivered"] == found["sent"], store
        assert found["lost"] == 0, store
        assert found["duplicates"] < found["sent"] / 10, store
        assert 0 < found["p50_seconds"] <= found["p99_seconds"], store
