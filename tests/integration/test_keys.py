"""Keys of a running gateway: managed while it serves, and in nothing that it says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.cli import main
from gateway.core.credential import format_key, hash_key
from tests.support.system import KEY, AnalysisApi, GatewayProcess

ADMIN = format_key(b"the-operator's-key-for-all")
STRANGER = format_key(b"a-key-that-nobody-knows-of")
ENTRIES = [
    {"id": "root", "owner": "ops", "scopes": ["admin"], "hash": hash_key(ADMIN)},
    {"id": "test", "owner": "test", "hash": hash_key(KEY)},
]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("keys")
    policies = {"auth": {"entries": ENTRIES}}
    async with (
        AnalysisApi() as api,
        GatewayProcess(folder, api.url, policies=policies) as running,
    ):
        yield running


@pytest.fixture
def keys(
    gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Runs `gateway keys` through the running gateway; what it printed."""
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", ADMIN)

    async def run(*arguments: str) -> str:
        command = ["keys", *arguments, "--admin", gateway.admin]
        code = await asyncio.to_thread(main, command)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


async def status(gateway: GatewayProcess, key: str) -> int:
    return (await gateway.request("GET", "/api/v1/jobs", key=key)).status


async def test_keys_are_managed_while_the_gateway_serves(
    gateway: GatewayProcess, keys: Any
) -> None:
    out = await keys("create", "--owner", "acme", "--id", "ci", "--scopes", "jobs:read")
    [first] = re.findall(r"gw_[0-9a-f]{64}", out)
    assert await status(gateway, first) == 200

    [second] = re.findall(r"gw_[0-9a-f]{64}", await keys("rotate", "ci", "--id", "ci2"))
    assert [await status(gateway, key) for key in (first, second)] == [200, 200]

    await keys("revoke", "ci")
    assert [await status(gateway, key) for key in (first, second)] == [401, 200]
    assert re.search(r"^ci +acme .* revoked ", await keys("list"), re.MULTILINE)


async def test_keys_outlive_a_crash(gateway: GatewayProcess, keys: Any) -> None:
    [key] = re.findall(r"gw_[0-9a-f]{64}", await keys("create", "--owner", "acme"))
    await gateway.kill()
    await gateway.start()

    assert await status(gateway, key) == 200


async def test_a_key_is_in_nothing_that_the_gateway_says(gateway: GatewayProcess) -> None:
    said: list[str] = []
    for key in (KEY, ADMIN, STRANGER):
        for path, headers in [
            ("/api/v1/jobs", {"X-API-Key": key}),
            ("/api/v1/jobs", {"Authorization": f"Bearer {key}"}),
            ("/api/v1/jobs", {"X-API-Key": f"{key} "}),
            ("/api/v1/jobs", {"X-API-Key": key, "Authorization": f"Bearer {key}x"}),
            ("/api/v1/jobs", {"Connection": "x-api-key", "X-API-Key": key}),
            ("/api/v1/jobs", {"Authorization": f"Basic {key}"}),
            ("/api/v1/jobs", {"X-Request-ID": key}),
            (f"/api/v1/jobs?api_key={key}", {}),
            (f"/api/v1/jobs/{key}", {}),
            (f"/api/v1/analysis/{key}/status", {"X-API-Key": KEY}),
            ("/api/v1/webhooks/none", {"X-API-Key": key}),
            ("/api/v1/webhooks?cursor=x", {"X-API-Key": key}),
            ("/api/v1/nothing", {"X-API-Key": key}),
        ]:
            answer = await gateway.request("GET", path, key=None, headers=headers)
            said.append(f"{answer.status} {answer.headers} {answer.body.decode()}")
        for body in (b"{", b'{"url": 5}'):  # the upstream's 422 echoes the headers it got
            answer = await gateway.request(
                "POST",
                "/api/v1/analysis",
                key=key,
                data=body,
                headers={"Content-Type": "application/json"},
            )
            said.append(f"{answer.status} {answer.headers} {answer.body.decode()}")
        refused = await gateway.ask_admin(f"/keys/{key}")
        said.append(f"{refused.status} {refused.headers} {refused.body.decode()}")
    said += [(await gateway.ask_admin(path)).body.decode() for path in ("/metrics", "/health")]
    said.append(gateway.log)

    everything = "\n".join(said)
    for key in (KEY, ADMIN, STRANGER):
        found = everything.find(key)
        assert found < 0, everything[max(0, found - 300) : found + 100]
    assert [key for key in (KEY, ADMIN, STRANGER) if hash_key(key) in everything] == []


async def test_last_use_is_known_without_a_write_on_the_request(
    gateway: GatewayProcess, keys: Any
) -> None:
    out = await keys("create", "--owner", "acme", "--id", "used")
    [key] = re.findall(r"gw_[0-9a-f]{64}", out)
    assert re.search(r"^used .* -$", await keys("list"), re.MULTILINE)

    await status(gateway, key)

    assert re.search(r"^used .* \d{4}-\d\d-\d\dT", await keys("list"), re.MULTILINE)
    assert await gateway.terminate() == 0
    await gateway.start()
    assert re.search(r"^used .* \d{4}-\d\d-\d\dT", await keys("list"), re.MULTILINE)
