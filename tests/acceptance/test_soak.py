"""`make soak ARGS='--quick --json'`: mixed load under outages loses nothing and leaves nothing."""

from __future__ import annotations

import pytest

from tests.support.convex import require_server
from tests.support.quick_run import quick_run

LIMIT_SECONDS = 120.0


@pytest.mark.timeout(LIMIT_SECONDS + 10)
async def test_quick_run_loses_nothing_and_leaves_nothing_behind() -> None:
    require_server()
    report = await quick_run("benchmarks.soak", LIMIT_SECONDS)
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
