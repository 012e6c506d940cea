"""Two gateways on one Redis: a key made, revoked or used at one is so at the other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cli import main
from tests.support.system import KEY, VIDEO, AnalysisApi, GatewayProcess, eventually
from tests.support.valkey import Valkey

HEADERS = {"Idempotency-Key": '"the-same-at-both"'}


@pytest.fixture
async def replicas(tmp_path: Path, valkey: Valkey) -> AsyncIterator[list[GatewayProcess]]:
    shared = {
        "redis": {"url": "${REDIS_URL}"},
        "store": {"keys": "redis"},
        "environment": {"REDIS_URL": valkey.url},
    }
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    async with (
        AnalysisApi() as api,
        GatewayProcess(folders[0], api.url, **shared) as one,
        GatewayProcess(folders[1], api.url, **shared) as two,
    ):
        yield [one, two]


@pytest.fixture
def keys(
    replicas: list[GatewayProcess],
    valkey: Valkey,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> object:
    """Runs `gateway keys` on the store, beside the gateways; what it printed."""
    monkeypatch.setenv("REDIS_URL", valkey.url)
    monkeypatch.setenv("WEBHOOK_SECRET_KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

    async def run(*arguments: str) -> str:
        config = str(replicas[0].folder / "gateway.yaml")
        code = await asyncio.to_thread(main, ["keys", *arguments, "--config", config])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


async def test_a_key_is_known_and_revoked_everywhere(
    replicas: list[GatewayProcess], keys: object
) -> None:
    assert callable(keys)
    out = await keys("create", "--store", "--owner", "acme", "--id", "ci")
    [key] = re.findall(r"gw_[0-9a-f]{64}", out)

    async def answered(status: int) -> bool:
        answers = [await each.request("GET", "/api/v1/jobs", key=key) for each in replicas]
        return all(answer.status == status for answer in answers)

    await eventually("both know the key", lambda: answered(200), seconds=2)
    await keys("revoke", "ci")
    await eventually("neither knows it any more", lambda: answered(401), seconds=2)


async def test_a_creation_tried_again_at_the_other_is_the_same(
    replicas: list[GatewayProcess],
) -> None:
    first, second = [
        await each.request("POST", "/api/v1/analysis", {"url": VIDEO}, key=KEY, headers=HEADERS)
        for each in replicas
    ]

    assert first.body == second.body
    assert second.headers["Idempotency-Replayed"] == "true"
