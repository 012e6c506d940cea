"""How many jobs there may be at once, asked of whole gateways."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.system import (
    KEY,
    OTHER_KEY,
    VIDEO,
    AnalysisApi,
    GatewayProcess,
    eventually,
)
from tests.support.valkey import Valkey

CREATE = "/api/v1/analysis"
MOST = 4


async def test_a_job_keeps_the_place_of_its_key(tmp_path: Path) -> None:
    bounds = {"admission": {"max_concurrent": 10, "max_per_key": 1}}
    async with (
        AnalysisApi(speed=1.0) as api,  # no job ends while the test lasts
        GatewayProcess(tmp_path, api.url, jobs=bounds) as gateway,
    ):
        assert (await gateway.request("POST", CREATE, {"url": VIDEO})).status == 200
        full = await gateway.request("POST", CREATE, {"url": VIDEO})
        assert full.status == 503
        assert "1 jobs of this key are active" in full.document["detail"]
        assert (await gateway.request("POST", CREATE, {"url": VIDEO}, key=OTHER_KEY)).status == 200

        await gateway.terminate()
        await gateway.start()
        assert (await gateway.request("POST", CREATE, {"url": VIDEO}, key=KEY)).status == 503


@pytest.fixture
def valkey_of_its_own(tmp_path: Path) -> Iterator[Valkey]:
    (tmp_path / "valkey").mkdir()
    with Valkey(tmp_path / "valkey") as server:
        yield server


async def test_replicas_of_one_upstream_share_the_places(
    tmp_path: Path, valkey_of_its_own: Valkey
) -> None:
    shared: dict[str, Any] = {
        "store": {"kind": "redis"},
        "redis": {"url": "${REDIS_URL}"},
        "environment": {"REDIS_URL": valkey_of_its_own.url},
        "upstream": {"shared": True},
        "jobs": {"admission": {"max_concurrent": MOST}, "watch": {"lease": "1s"}},
    }
    folders = [tmp_path / f"replica-{number}" for number in range(3)]
    async with AnalysisApi(speed=1.0, create_seconds=0.05) as api, AsyncExitStack() as stack:
        gateways = []
        for folder in folders:
            folder.mkdir()
            gateway = GatewayProcess(folder, api.url, **shared)
            gateways.append(await stack.enter_async_context(gateway))

        async def statuses() -> Counter[int]:
            """A crowd at each replica: clients that all call their creation the same."""
            alike = {"X-Request-ID": "the-same-for-all"}
            answers = await asyncio.gather(
                *(
                    gateway.request("POST", CREATE, {"url": VIDEO}, headers=alike)
                    for gateway in gateways
                    for _ in range(MOST)
                )
            )
            return Counter(answer.status for answer in answers)

        assert await statuses() == {200: MOST, 503: 2 * MOST}
        assert (await api.asked())["create"] == MOST

        await gateways.pop(0).kill()  # what it created goes on, and keeps its places
        leased_until = (time.time() + 1.0) * 1000

        async def are_renewed() -> bool:
            with closing(valkey_of_its_own.client()) as direct:
                return direct.zcount("{gw:places}:all", leased_until, "+inf") == MOST

        await eventually("the other replicas hold all places", are_renewed)
        assert await statuses() == {503: 2 * MOST}

        job_id = (await gateways[0].request("GET", "/api/v1/jobs")).document["jobs"][0]["job_id"]
        cancelled = await gateways[0].request("DELETE", f"/api/v1/queue/jobs/{job_id}")
        assert cancelled.status == 200

        async def one_is_free() -> bool:
            return (await statuses()).get(200) == 1

        await eventually("the cancelled job's place is taken again", one_is_free)
        assert await statuses() == {503: 2 * MOST}
