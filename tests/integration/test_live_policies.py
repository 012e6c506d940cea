"""Policies changed under a running gateway: no request lost, no stream cut, nothing forgotten."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web

from gateway.core.credential import hash_key
from tests.support.echo import Echo
from tests.support.system import KEY, GatewayProcess, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS = 8
RELOADS = 6
JSON = {"Content-Type": "application/json"}
KEYED = {"X-API-Key": KEY}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream: Echo, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    settings: dict[str, Any] = {"health": {"interval": "1h"}, "policies": {"poll": "100ms"}}
    url = f"http://127.0.0.1:{upstream.port}"
    async with GatewayProcess(tmp_path_factory.mktemp("gw"), url, **settings) as process:
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=KEYED) as session:
        yield session


def write(gateway: GatewayProcess, name: str, document: Any) -> None:
    """Replace a policy file in one step, as careful editors do."""
    path = gateway.folder / "policies" / name
    partial = path.with_name(f".{name}.partial")
    partial.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    partial.replace(path)


def limits(limit: int) -> dict[str, Any]:
    return {"limits": {"per-key": {"limit": limit, "window": "1h", "by": ["key"]}}}


async def generation(gateway: GatewayProcess) -> int:
    return int((await gateway.metrics())["gateway_policy_generation"])


async def reloaded(gateway: GatewayProcess, after: int) -> None:
    async def is_reloaded() -> bool:
        return await generation(gateway) > after

    await eventually("the policies are in force", is_reloaded)


async def test_reloads_under_load_drop_no_request(
    gateway: GatewayProcess, client: aiohttp.ClientSession
) -> None:
    seen: Counter[int] = Counter()
    headers: Counter[str] = Counter()
    done = asyncio.Event()

    async def ask(number: int) -> None:
        while not done.is_set():
            data = b"{}" if number % 2 else None
            method = "POST" if data else "GET"
            async with client.request(
                method, f"{gateway.public}/load", data=data, headers=JSON
            ) as response:
                await response.read()
                seen[response.status] += 1
                headers[response.headers["X-Generation"]] += 1

    async def change() -> None:
        try:
            for number in range(RELOADS):
                before = await generation(gateway)
                write(gateway, "rate_limits.yaml", limits(10**6 + number))
                value = {"X-Generation": str(number)}
                write(gateway, "security_headers.yaml", {"headers": value})
                await reloaded(gateway, before)
        finally:
            done.set()

    before = await generation(gateway)
    write(gateway, "security_headers.yaml", {"headers": {"X-Generation": "start"}})
    await reloaded(gateway, before)
    async with asyncio.TaskGroup() as group:
        group.create_task(change())
        for number in range(CLIENTS):
            group.create_task(ask(number))

    assert set(seen) == {200}
    assert seen.total() > 10 * RELOADS
    assert len(headers) > 1


async def test_a_stream_and_a_request_under_way_are_untouched(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    gate = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await gate.wait()
        await response.write(b"data: last\n\n")
        return response

    echo.answer = answer
    try:
        async with client.get(f"{gateway.public}/stream") as response:
            assert await response.content.readline() == b"data: first\n"
            before = await generation(gateway)
            write(gateway, "auth.yaml", {"entries": []})  # the key is gone
            await reloaded(gateway, before)
            echo.answer = None
            async with client.get(f"{gateway.public}/x") as refused:
                assert refused.status == 401
            gate.set()
            assert await response.content.read() == b"\ndata: last\n\n"
    finally:
        echo.answer = None
        gate.set()
        before = await generation(gateway)
        write(gateway, "auth.yaml", {"entries": [entry()]})
        await reloaded(gateway, before)


def entry() -> dict[str, Any]:
    return {"id": "test", "hash": hash_key(KEY), "owner": "test"}


async def test_counts_and_stored_answers_outlive_a_reload(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"kept", headers={"Cache-Control": "public, max-age=600"})

    async def ask() -> tuple[int, str]:
        async with client.get(f"{gateway.public}/kept") as response:
            field = response.headers["RateLimit"]
            return int(field.split("r=")[1].split(";")[0]), response.headers["Cache-Status"]

    before = await generation(gateway)
    write(gateway, "rate_limits.yaml", limits(2_000_000))
    await reloaded(gateway, before)
    echo.answer = answer
    echo.arrived.clear()
    try:
        first, _ = await ask()
        before = await generation(gateway)
        write(gateway, "rate_limits.yaml", limits(3_000_000))
        write(gateway, "cache.yaml", {"ttl": "10s"})
        await reloaded(gateway, before)
        left, status = await ask()
    finally:
        echo.answer = None

    assert left == first - 1 + 1_000_000
    assert status.startswith("gateway; hit")
    assert len(echo.arrived) == 1


async def test_a_bad_file_is_told_in_health_and_metrics_and_changes_nothing(
    gateway: GatewayProcess, client: aiohttp.ClientSession
) -> None:
    before = await generation(gateway)
    write(gateway, "auth.yaml", "entires: []\nmode: shadwo\n")

    async def is_told() -> bool:
        components = (await gateway.health())["components"]
        return bool(components["policies"]["status"] == "degraded")

    await eventually("health tells of the bad file", is_told)
    component = (await gateway.health())["components"]["policies"]
    path: Path = gateway.folder / "policies" / "auth.yaml"
    assert component["generation"] == before
    assert f"{path}:1: entires: unknown key; did you mean 'entries'?" in component["problems"]
    assert any("auth.yaml:2: mode: must be" in problem for problem in component["problems"])
    assert (await gateway.metrics())["gateway_policies_refused"] == 1

    async def is_logged() -> bool:
        return "policies_refused" in gateway.log

    await eventually("the problems are logged", is_logged)
    async with client.get(f"{gateway.public}/x") as response:
        assert response.status == 200  # by the keys of the last good file

    write(gateway, "auth.yaml", {"entries": [entry()]})
    await reloaded(gateway, before)
    assert (await gateway.health())["components"]["policies"]["status"] == "healthy"


async def test_sighup_reads_the_files_at_once(gateway: GatewayProcess) -> None:
    before = await generation(gateway)

    os.kill(gateway.pid, signal.SIGHUP)

    await reloaded(gateway, before)
