"""Operators and webhooks: the admin listener and `gateway webhooks`, beside a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from gateway.cli import main
from gateway.core.credential import format_key, hash_key
from tests.support.receiver import Receiver, Reply
from tests.support.system import KEY, OTHER_KEY, ROOT, AnalysisApi, GatewayProcess, eventually

ADMIN = format_key(b"the-operator's-key-for-all")
ENTRIES = [
    {"id": "root", "owner": "ops", "scopes": ["admin"], "hash": hash_key(ADMIN)},
    {"id": "test", "owner": "test", "scopes": ["webhooks", "jobs:write"], "hash": hash_key(KEY)},
    {"id": "other", "owner": "other", "scopes": ["webhooks"], "hash": hash_key(OTHER_KEY)},
]
Command = Callable[..., Awaitable[Any]]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("webhooks")
    policies = {"auth": {"entries": ENTRIES}}
    async with (
        AnalysisApi() as api,
        GatewayProcess(folder, api.url, policies=policies) as running,
    ):
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `gateway webhooks`; its document, or with `text` what it printed for people."""
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", ADMIN)

    async def run(*arguments: str, text: bool = False) -> Any:
        given = ["webhooks", *arguments, *([] if text else ["--json"])]
        code = await asyncio.to_thread(main, given)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out if text else json.loads(out)

    return run


async def exhausted(gateway: GatewayProcess, receiver: Receiver, path: str) -> tuple[Any, str]:
    """A webhook one of whose deliveries was given up, and that delivery's id."""
    receiver.fail(1, path=path)
    webhook = await gateway.register(receiver.url_of(path), max_retries=0)
    sent = (await gateway.request("POST", f"/api/v1/webhooks/{webhook['id']}/test")).document

    async def is_exhausted() -> bool:
        return bool(await gateway.deliveries(webhook["id"], "&status=exhausted"))

    await eventually("the delivery is given up", is_exhausted)
    return webhook, sent["delivery_id"]


async def test_every_owners_webhooks_are_listed_without_their_secrets(
    gateway: GatewayProcess, receiver: Receiver, command: Command
) -> None:
    own = await gateway.register(receiver.url)
    body = {"url": receiver.url}
    answer = await gateway.request("POST", "/api/v1/webhooks", body, key=OTHER_KEY)
    listed = {each["id"]: each for each in await command("list", "--admin", gateway.admin)}
    assert {own["id"], answer.document["id"]} <= listed.keys()
    assert listed[answer.document["id"]]["owner"] == "other"
    assert all("secret" not in each for each in listed.values())
    only = await command("list", "--owner", "other", "--admin", gateway.admin)
    assert [each["id"] for each in only] == [answer.document["id"]]


async def test_given_up_delivery_is_shown_and_sent_again_by_command(
    gateway: GatewayProcess, receiver: Receiver, command: Command
) -> None:
    webhook, delivery_id = await exhausted(gateway, receiver, "/again")
    shown = await command("show", webhook["id"], "--admin", gateway.admin, text=True)
    assert delivery_id in shown
    assert "exhausted" in shown
    assert webhook["secret"] not in shown
    to_do = ("replay", webhook["id"], "--delivery", delivery_id, "--admin", gateway.admin)
    assert await command(*to_do) == {"replayed": 1}
    await receiver.wait_until(lambda: len(receiver.at("/again")) == 2)
    first, second = receiver.at("/again")
    assert (second.id, second.body) == (first.id, first.body)
    lines = await command(
        "audit", "--webhook", webhook["id"], "--action", "webhook.*", "--admin", gateway.admin
    )
    assert [(line["action"], line["actor"]) for line in lines] == [
        ("webhook.redelivered", "key:root"),
        ("webhook.tested", "key:test"),
        ("webhook.created", "key:test"),
    ]


async def test_what_was_missed_since_a_time_is_sent_again_by_command(
    gateway: GatewayProcess, receiver: Receiver, command: Command
) -> None:
    receiver.always(Reply(500), path="/missed")
    url = receiver.url_of("/missed")
    webhook = await gateway.register(url, ["job.completed"], max_retries=0)
    await gateway.create()

    async def is_given_up() -> bool:
        return bool(await gateway.deliveries(webhook["id"], "&status=exhausted"))

    await eventually("the delivery is given up", is_given_up)
    receiver.always(Reply(204), path="/missed")
    done = await command(
        "replay", webhook["id"], "--since", "2024-01-01T00:00:00Z", "--admin", gateway.admin
    )
    assert done == {"replayed": 1}
    await receiver.wait_until(lambda: len(receiver.at("/missed")) == 2)


async def test_commands_work_on_the_store_while_no_gateway_runs(
    gateway: GatewayProcess, receiver: Receiver, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook, delivery_id = await exhausted(gateway, receiver, "/stopped")
    await gateway.terminate()
    try:
        monkeypatch.delenv("GATEWAY_ADMIN_KEY")
        monkeypatch.setenv("WEBHOOK_SECRET_KEY", "")
        config = ("--config", str(gateway.folder / "gateway.yaml"))
        assert webhook["id"] in [each["id"] for each in await command("list", *config)]
        done = await command("replay", webhook["id"], "--delivery", delivery_id, *config)
        lines = await command("audit", "--webhook", webhook["id"], *config)
    finally:
        await gateway.start()
    assert done == {"replayed": 1}
    assert (lines[0]["action"], lines[0]["actor"]) == ("webhook.redelivered", "operator")
    await receiver.wait_until(lambda: len(receiver.at("/stopped")) == 2)


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), ("gw_" + "0" * 64, 401), (KEY, 403), (ADMIN, 200)]
)
@pytest.mark.parametrize("path", ["/webhooks", "/audit"])
async def test_admin_api_needs_the_scope_admin(
    gateway: GatewayProcess, path: str, key: str | None, status: int
) -> None:
    headers = {} if key is None else {"X-API-Key": key}
    async with (
        aiohttp.ClientSession() as session,
        session.get(gateway.admin + path, headers=headers) as response,
    ):
        assert response.status == status


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "wh_none"), "There is no webhook wh_none."),
        (("replay", "wh_none", "--delivery", "dlv_1"), "There is no webhook wh_none."),
        (("audit", "--action", "webhook.eaten"), "'action' must be one of"),
        (("audit", "--since", "yesterday"), "'since' must be an RFC 3339 time"),
        (("audit", "--limit", "101"), "'limit' must be from 1 to 100"),
        (("list", "--admin", "http://127.0.0.1:9"), "Cannot connect"),
    ],
)
async def test_command_says_in_one_line_what_is_wrong(
    gateway: GatewayProcess,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", ADMIN)
    given = ["webhooks", arguments[0], "--admin", gateway.admin, *arguments[1:]]
    assert await asyncio.to_thread(main, given) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


async def test_webhooks_have_a_rate_limit_of_their_own(tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "policies" / "rate_limits.yaml").read_text())
    limits = {"webhooks-per-key": shipped["limits"]["webhooks-per-key"]}
    allowed = limits["webhooks-per-key"]["limit"]
    policies = {"rate_limits": {"limits": limits}}
    async with (
        AnalysisApi() as api,
        GatewayProcess(tmp_path, api.url, policies=policies) as running,
    ):
        path = "/api/v1/webhooks"
        statuses = [(await running.request("GET", path)).status for _ in range(allowed + 1)]
        other = await running.request("GET", path, key=OTHER_KEY)
        history = await running.request("GET", "/api/v1/jobs/history")
        refused = await running.request("POST", path, {"url": "https://example.com/"})
    assert statuses == [200] * allowed + [429]
    assert (other.status, history.status, refused.status) == (200, 200, 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.document["violated-policies"] == ["webhooks-per-key"]
