"""A creation tried again by its key: one job, whatever happened in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.support.system import VIDEO, AnalysisApi, Answer, GatewayProcess, eventually

HEADERS = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}


async def create(gateway: GatewayProcess) -> Answer:
    return await gateway.request("POST", "/api/v1/analysis", {"url": VIDEO}, headers=HEADERS)


async def creations(api: AnalysisApi) -> int:
    return (await api.asked()).get("create", 0)


async def test_an_answer_outlives_the_gateway(tmp_path: Path) -> None:
    async with AnalysisApi() as api, GatewayProcess(tmp_path, api.url) as gateway:
        first = await create(gateway)
        await gateway.kill()
        await gateway.start()
        again = await create(gateway)

        assert (first.status, again.status) == (200, 200)
        assert again.body == first.body
        assert again.headers["Idempotency-Replayed"] == "true"
        assert await creations(api) == 1


async def test_a_gateway_killed_while_it_creates_never_creates_twice(tmp_path: Path) -> None:
    async with (
        AnalysisApi(create_seconds=1.0) as api,
        GatewayProcess(tmp_path, api.url) as gateway,
    ):
        first = asyncio.create_task(create(gateway))

        async def reserved() -> bool:
            return bool((await gateway.metrics()).get("gateway_idempotency_total{result=first}"))

        await eventually("the first creation has the key", reserved)
        twin = await create(gateway)
        assert (twin.status, twin.headers["Retry-After"]) == (409, "2")
        assert twin.document["type"].endswith("request-outstanding")
        await gateway.kill()
        with pytest.raises(aiohttp.ClientError):
            await first
        await gateway.start()
        again = await create(gateway)

        assert again.status == 409
        assert again.document["type"].endswith("outcome-unknown")
        assert "Retry-After" not in again.headers
        assert await creations(api) <= 1
