"""Two gateways on one Redis count together; without it each for itself, and never a 500."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.system import AnalysisApi, GatewayProcess, eventually
from tests.support.valkey import Valkey

LIMIT = 20


@pytest.fixture
def server(tmp_path: Path) -> Valkey:
    (tmp_path / "valkey").mkdir()
    return Valkey(tmp_path / "valkey")


@pytest.fixture
async def replicas(tmp_path: Path, server: Valkey) -> AsyncIterator[list[GatewayProcess]]:
    policies = {
        "rate_limits": {"limits": {"all": {"limit": LIMIT, "window": "1h", "by": ["owner"]}}}
    }
    with server:
        shared = {"redis": {"url": "${REDIS_URL}"}, "environment": {"REDIS_URL": server.url}}
        folders = [tmp_path / name for name in ("one", "two")]
        for folder in folders:
            folder.mkdir()
        async with (
            AnalysisApi() as api,
            GatewayProcess(folders[0], api.url, policies=policies, **shared) as one,
            GatewayProcess(folders[1], api.url, policies=policies, **shared) as two,
        ):
            yield [one, two]


async def statuses(replicas: list[GatewayProcess], count: int) -> Counter[int]:
    answers = await asyncio.gather(
        *(each.request("GET", "/api/v1/jobs") for each in replicas for _ in range(count))
    )
    return Counter(answer.status for answer in answers)


async def test_replicas_count_together_and_go_on_alone(
    replicas: list[GatewayProcess], server: Valkey
) -> None:
    assert await statuses(replicas, 15) == {200: LIMIT, 429: 10}

    server.kill()
    alone = await statuses(replicas, 25)  # each now counts for itself, from none
    assert alone == {200: 2 * LIMIT, 429: 10}
    assert [(await each.metrics())["gateway_windows_away"] for each in replicas] == [1, 1]

    server.start()

    async def shared() -> bool:
        await statuses(replicas, 1)
        return all([not (await each.metrics())["gateway_windows_away"] for each in replicas])

    await eventually("the windows are shared again", shared)

    async def told() -> bool:
        # Lines are written in the background, a moment after what they tell of.
        return all('"event":"windows_back"' in each.log for each in replicas)

    await eventually("the outage's end is logged", told)
    for each in replicas:
        assert each.log.count('"event":"windows_away"') == 1
        assert each.log.count('"event":"windows_back"') == 1
        assert "unhandled_error" not in each.log
