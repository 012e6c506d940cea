"""Operators and jobs: the admin listener and `gateway jobs`, beside a running gateway and alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.cli import main
from gateway.core.credential import format_key, hash_key
from tests.support.receiver import Receiver
from tests.support.system import KEY, AnalysisApi, GatewayProcess

ADMIN = format_key(b"the-operator's-key-for-all")
SCOPES = ["webhooks", "jobs:read", "jobs:write"]
ENTRIES = [
    {"id": "root", "owner": "ops", "scopes": ["admin"], "hash": hash_key(ADMIN)},
    {"id": "test", "owner": "test", "scopes": SCOPES, "hash": hash_key(KEY)},
]
Command = Callable[..., Awaitable[Any]]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `gateway jobs`; its document, or with `text` what it printed for people."""
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", ADMIN)

    async def run(*arguments: str, text: bool = False, code: int = 0) -> Any:
        given = ["jobs", *arguments, *([] if text else ["--json"])]
        ended = await asyncio.to_thread(main, given)
        out, err = capsys.readouterr()
        assert ended == code, err
        if code:
            return err
        return out if text else json.loads(out)

    return run


async def test_a_job_is_found_shown_and_sent_again_by_a_running_gateway_and_from_its_store(
    tmp_path: Path, receiver: Receiver, command: Command
) -> None:
    policies = {"auth": {"entries": ENTRIES}}
    async with (
        AnalysisApi() as api,
        GatewayProcess(tmp_path, api.url, policies=policies) as running,
    ):
        webhook = await running.register(receiver.url)
        job_id = await running.create()
        await running.finish(job_id)
        await receiver.wait_until(lambda: "job.completed" in receiver.events)
        admin = ("--admin", running.admin)
        assert [job["job_id"] for job in await command("list", *admin)] == [job_id]
        for narrowed in ("--state=failed", "--owner=nobody", "--older-than=1h", "--limit=0"):
            assert await command("list", narrowed, *admin) == []
        assert await command("list", "--owner=test", "--newer-than=1h", *admin)
        listed = await command("list", *admin, text=True)
        assert job_id in listed
        assert "completed" in listed
        shown = await command("show", job_id, *admin)
        assert shown["owner"] == "test"
        assert shown["events"][-1]["type"] == "job.completed"
        assert {each["destination"] for each in shown["deliveries"]} == {webhook["id"]}
        assert "job.completed" in await command("show", job_id, *admin, text=True)
        asked = ("replay", job_id, "--webhook", webhook["id"], "--event", "job.completed")
        assert await command(*asked, *admin) == {"replayed": 1}
        await receiver.wait_until(lambda: receiver.events.count("job.completed") == 2)
        first, again = (each for each in receiver.requests if each.event == "job.completed")
        assert (first.id, first.body) == (again.id, again.body)
        assert "no job job-9" in await command("show", "job-9", *admin, code=1)
        config = str(running.folder / "gateway.yaml")
    # The gateway is gone: the same from its store.
    alone = await command("show", job_id, "--config", config)
    assert alone["sequence"] == shown["sequence"]
    assert len(alone["deliveries"]) == len(shown["deliveries"]) + 1
    assert await command(*asked, "--config", config) == {"replayed": 1}


@pytest.mark.parametrize("arguments", [("list", "--older-than", "long"), ("replay", "j1")])
async def test_wrong_usage_says_what_is_wrong(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["jobs", *arguments])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "not a duration" in said or "--webhook" in said
