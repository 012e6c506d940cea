"""A rolling restart under load: every request is answered, every stream ends in order."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path

import aiohttp
import pytest

from gateway.web.event_stream import HINT
from tests.support.balancer import balancing
from tests.support.lane import connected, get
from tests.support.system import KEY, AnalysisApi, GatewayProcess

CLIENTS = 12


@pytest.mark.parametrize("how", ["drain", "sigterm"])
async def test_a_rolling_restart_under_load_loses_no_request(tmp_path: Path, how: str) -> None:
    answers: list[int] = []
    done = asyncio.Event()

    async def client(port: int) -> None:
        """Asks without a pause, each method in turn; a connection is used until it is ended."""
        async with aiohttp.ClientSession(headers={"X-API-Key": KEY}) as session:
            for number in count():
                if done.is_set():
                    return
                method = ("GET", "POST", "GET")[number % 3]
                url = f"http://127.0.0.1:{port}/api/v1/test"
                async with session.request(
                    method, url, data=b"x" if method == "POST" else None
                ) as r:
                    await r.read()
                    answers.append(r.status)

    async with AnalysisApi() as api:
        gateways = [
            GatewayProcess(folder, api.url, server={"drain_delay": "300ms", "drain_timeout": "10s"})
            for folder in (tmp_path / "a", tmp_path / "b")
        ]
        for gateway in gateways:
            gateway.folder.mkdir()
            await gateway.start()
        try:
            async with balancing(gateways) as port:
                clients = [asyncio.create_task(client(port)) for _ in range(CLIENTS)]
                for gateway in gateways:
                    before = len(answers)
                    if how == "drain":
                        await gateway.request_drain()
                    assert await gateway.terminate() == 0
                    await gateway.start()
                    while len(answers) < before + 50:  # noqa: ASYNC110 - other tasks fill it
                        await asyncio.sleep(0.01)
                done.set()
                await asyncio.gather(*clients)  # raises what any of them met
        finally:
            for gateway in gateways:
                await gateway.close()

    assert len(answers) > 100
    assert {status for status in answers if status >= 500} == set()


async def test_a_stop_ends_a_stream_with_a_hint(tmp_path: Path) -> None:
    async with (
        AnalysisApi(speed=0.5) as api,
        GatewayProcess(tmp_path, api.url, server={"drain_timeout": "10s"}) as gateway,
    ):
        job_id = await gateway.create()
        async with connected(int(gateway.public.rpartition(":")[2])) as wire:
            await wire.send(get(f"/api/v1/analysis/{job_id}/stream", f"X-API-Key: {KEY}"))
            await wire.reader.readuntil(b"\n\n")
            assert await gateway.terminate() == 0
            rest = await wire.rest()
    assert HINT in rest
    assert rest.endswith(b"\r\n0\r\n\r\n")
