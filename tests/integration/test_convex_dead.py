"""What Convex refuses: said in health and log, sent again by command; the rest goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.core.credential import format_key, hash_key
from gateway.delivery.convex_error import COMPARE
from tests.support.convex import ConvexServer, require_server
from tests.support.system import KEY, AnalysisApi, GatewayProcess, eventually

ADMIN = format_key(b"the-operator's-key-for-all")
ENTRIES = [
    {"id": "root", "owner": "ops", "scopes": ["admin"], "hash": hash_key(ADMIN)},
    {"id": "test", "owner": "test", "scopes": ["jobs:read", "jobs:write"], "hash": hash_key(KEY)},
]
TRACK = "jobs:trackAnalytics"
REFUSAL = "ArgumentValidationError: Object contains extra field `errorCount`"
Command = Callable[..., Awaitable[Any]]


@pytest.fixture(scope="module")
def convex_process() -> Any:
    require_server()
    with ConvexServer() as server:
        yield server


@pytest.fixture
async def convex(convex_process: ConvexServer) -> ConvexServer:
    await convex_process.reset()
    return convex_process


@pytest.fixture
async def gateway(convex: ConvexServer, tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    settings = {
        "convex": {"url": convex.url, "retry_delays": ["50ms"]},
        "environment": {"CONVEX_DEPLOY_KEY": convex.deploy_key},
        "policies": {"auth": {"entries": ENTRIES}},
    }
    async with AnalysisApi() as api, GatewayProcess(tmp_path, api.url, **settings) as process:
        yield process


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `gateway convex`; its document, or with `fails` what it said on stderr."""
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", ADMIN)

    async def run(*arguments: str, fails: bool = False) -> Any:
        code = await asyncio.to_thread(main, ["convex", *arguments, "--json"])
        out, err = capsys.readouterr()
        assert code == int(fails), err
        return err if fails else json.loads(out)

    return run


async def test_deployment_that_lags_behind_is_said_and_its_letters_go_out_once_it_is_mended(
    gateway: GatewayProcess, convex: ConvexServer, command: Command
) -> None:
    await convex.fault("error", path=TRACK, message=REFUSAL)
    refused = await gateway.create()
    await gateway.finish(refused)
    other = await gateway.create()
    await gateway.finish(other)

    async def analytics() -> list[str]:
        return [row["jobId"] for row in await convex.dump("jobAnalytics")]

    async def has_the_other() -> bool:
        return other in await analytics()

    await eventually("the rest goes on", has_the_other)

    async def degraded() -> bool:
        return bool((await gateway.health())["components"]["convex"]["status"] == "degraded")

    await eventually("health says so", degraded)
    error = (await gateway.health())["components"]["convex"]["error"]
    assert error.startswith("1 message was refused (`gateway convex dead`), the last: ")
    assert error.endswith(f"{REFUSAL}; {COMPARE}")
    assert COMPARE in gateway.log

    (letter,) = await command("dead", "--admin", gateway.admin)
    assert (letter["operation"], letter["job_id"]) == ("track_analytics", refused)
    assert letter["detail"].endswith(COMPARE)
    done = await command("replay", letter["id"], "--admin", gateway.admin)
    assert done == {"replayed": 1, "no_longer_kept": 0}

    async def has_both() -> bool:
        return set(await analytics()) == {refused, other}

    await eventually("Convex has what it refused", has_both)
    assert await command("dead", "--admin", gateway.admin) == []


async def test_letters_are_listed_and_sent_again_beside_a_gateway_that_is_stopped(
    gateway: GatewayProcess, convex: ConvexServer, command: Command
) -> None:
    await convex.fault("error", path=TRACK, message=REFUSAL, count=2)
    jobs = {await gateway.create() for _ in range(2)}
    for job_id in jobs:
        await gateway.finish(job_id)

    async def both_refused() -> bool:
        return len(await command("dead", "--admin", gateway.admin)) == 2

    await eventually("both are refused", both_refused)
    config = ("--config", str(gateway.folder / "gateway.yaml"))
    in_use = await command("dead", *config, fails=True)
    assert "is in use by another gateway" in in_use
    assert "--admin http://HOST:PORT" in in_use
    await gateway.terminate()
    assert {each["job_id"] for each in await command("dead", *config)} == jobs
    assert (await command("replay", "--all", *config))["replayed"] == 2
    assert await command("dead", *config) == []
    await gateway.start()

    async def has_both() -> bool:
        return {row["jobId"] for row in await convex.dump("jobAnalytics")} == jobs

    await eventually("Convex has what it refused", has_both)


async def test_what_cannot_be_done_is_said(
    gateway: GatewayProcess, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--admin", gateway.admin)
    assert "There is no dead letter dlv_x" in await command("replay", "dlv_x", *at, fails=True)
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", KEY)
    assert "needs the scope admin" in await command("dead", *at, fails=True)
    monkeypatch.delenv("GATEWAY_ADMIN_KEY")
    assert "GATEWAY_ADMIN_KEY" in await command("replay", "--all", *at, fails=True)
