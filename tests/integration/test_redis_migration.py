"""The layout in Redis, up and down, over ten thousand keys and through a process's death."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.cli import main
from gateway.core.error import SettingsError, StoreUnavailable
from gateway.settings.store import Redis
from gateway.store.redis import migration
from gateway.store.redis.client import RedisClient
from gateway.store.redis.layout import LAYOUT_VERSION
from gateway.store.redis.migration import STEPS, Change, RedisLayout, Step
from tests.support.valkey import Valkey

ROOT = Path(__file__).resolve().parents[2]
ITEMS, BATCH = 10_000, 500


def each_item(change: Callable[[bytes], bytes], *, dies_after: int | None = None) -> Change:
    """A change of every item, which may kill its process after so many batches."""

    async def walk(client: RedisClient) -> AsyncIterator[None]:
        for start in range(0, ITEMS, BATCH):
            keys = [client.key("item", str(number)) for number in range(start, start + BATCH)]
            values = await client.commands([("GET", key) for key in keys])
            await client.commands(
                [("SET", key, change(value)) for key, value in zip(keys, values, strict=True)]
            )
            if dies_after is not None and start // BATCH + 1 == dies_after:
                os.kill(os.getpid(), signal.SIGKILL)
            yield

    return walk


FIRST = Step(1, "initial", None)
UPPER = Step(2, "upper", each_item(bytes.upper), each_item(bytes.lower))
DEADLY = Step(
    2, "upper", each_item(bytes.upper, dies_after=7), each_item(bytes.lower, dies_after=7)
)
ONE_WAY = Step(2, "one-way", each_item(bytes.upper))


def client_of(url: str) -> RedisClient:
    return RedisClient(Redis(url=SecretStr(url)))


@pytest.fixture
async def client(valkey: Valkey) -> AsyncIterator[RedisClient]:
    made = client_of(valkey.url)
    await made.command("SET", made.key("layout"), 1)
    await made.commands([("SET", made.key("item", str(n)), b"item %d" % n) for n in range(ITEMS)])
    yield made
    await made.close()


async def words(client: RedisClient) -> set[bytes]:
    """The different first words of all items."""
    keys = [("GET", client.key("item", str(n))) for n in range(ITEMS)]
    return {value.split()[0] for value in await client.commands(keys)}


async def test_up_and_down_change_every_key(client: RedisClient) -> None:
    layout = RedisLayout(client, [FIRST, UPPER])
    assert await layout.up() == "layout 1 to 2"
    assert (await words(client), await layout.stands_at()) == ({b"ITEM"}, 2)
    assert await layout.up() is None
    assert await layout.down() == "layout 2 (upper) to 1"
    assert (await words(client), await layout.stands_at()) == ({b"item"}, 1)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_death_in_the_middle_is_made_up_for_by_another_run(
    client: RedisClient, valkey: Valkey, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = RedisLayout(client, [FIRST, UPPER])
    if direction == "down":
        await layout.up()
    before = await layout.stands_at()
    script = textwrap.dedent(f"""
        import asyncio
        from gateway.store.redis import migration
        from tests.integration.test_redis_migration import DEADLY, FIRST, RedisLayout, client_of
        migration.LEASE_MILLISECONDS = 200
        asyncio.run(RedisLayout(client_of({valkey.url!r}), [FIRST, DEADLY]).{direction}())
    """)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=ROOT)
    assert await process.wait() == -signal.SIGKILL
    assert await words(client) == {b"item", b"ITEM"}
    assert await layout.stands_at() == before

    async with asyncio.timeout(10):
        # The lease of the dead runs out in the server: there is nothing to await.
        while await client.command("EXISTS", client.key("migrating")):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await getattr(layout, direction)()
    assert await words(client) == {b"ITEM" if direction == "up" else b"item"}


async def test_two_at_once_are_kept_apart(client: RedisClient) -> None:
    layouts = [RedisLayout(client, [FIRST, UPPER]) for _ in range(2)]
    done = await asyncio.gather(*(each.up() for each in layouts), return_exceptions=True)
    refused = [each for each in done if isinstance(each, SettingsError)]
    assert len(refused) == 1
    assert "is being migrated by another" in refused[0].problems[0]
    assert await words(client) == {b"ITEM"}


async def test_step_whose_lease_was_lost_does_not_claim_to_be_through(
    client: RedisClient,
) -> None:
    async def losing(of: RedisClient) -> AsyncIterator[None]:
        await of.command("DEL", of.key("migrating"))
        yield

    layout = RedisLayout(client, [FIRST, Step(2, "losing", losing)])
    with pytest.raises(SettingsError, match="another migration took over"):
        await layout.up()
    assert await layout.stands_at() == 1


async def test_step_without_a_way_back_says_what_is(client: RedisClient) -> None:
    layout = RedisLayout(client, [FIRST, ONE_WAY])
    await layout.up()
    with pytest.raises(SettingsError, match=r"layout 2 \(one-way\).*snapshot"):
        await layout.down()


async def test_namespace_without_data_has_nothing_to_migrate(valkey: Valkey) -> None:
    client = client_of(valkey.url)
    layout = RedisLayout(client, [FIRST, UPPER])
    assert (await layout.stands_at(), await layout.up()) == (0, None)
    with pytest.raises(SettingsError, match="holds nothing yet"):
        await layout.down()
    await layout.close()


async def test_newer_layout_is_refused(client: RedisClient) -> None:
    await client.command("SET", client.key("layout"), 3)
    with pytest.raises(SettingsError, match="has layout 3, and this gateway knows 2"):
        await RedisLayout(client, [FIRST, UPPER]).up()


async def test_command_shows_the_redis_that_has_the_jobs(
    client: RedisClient,
    valkey: Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GATEWAY__STORE__KIND", "redis")
    monkeypatch.setenv("GATEWAY__UPSTREAM__INSTANCE", "one")
    monkeypatch.setenv("GATEWAY__REDIS__URL", valkey.url)
    monkeypatch.setenv("GATEWAY__STORE__SQLITE__PATH", str(tmp_path / "gateway.db"))
    config = ["--config", str(ROOT / "gateway.yaml")]
    assert await asyncio.to_thread(main, ["migrate", "status", "store", *config]) == 0
    file, shared = capsys.readouterr().out.splitlines()
    assert file.startswith(f"SQLite file {tmp_path}/gateway.db: schema 0 of ")
    assert shared == f"Redis {client.name}: schema 1 of {LAYOUT_VERSION}"
    assert await asyncio.to_thread(main, ["migrate", "down", "store", *config]) == 1
    assert "layout 1 (initial), which has no way back" in capsys.readouterr().err


async def test_server_that_is_away_is_said() -> None:
    layout = RedisLayout(client_of("redis://127.0.0.1:1"))
    with pytest.raises(StoreUnavailable):
        await layout.stands_at()
    await layout.close()


def test_steps_lead_to_the_layout_that_is_written() -> None:
    assert [step.number for step in STEPS] == list(range(1, LAYOUT_VERSION + 1))
    assert migration.LEASE_MILLISECONDS >= 1000
