"""How data lies in Redis: partitioned by job, spread over a Cluster, and of one version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.app.dial import redis_component
from gateway.core.error import SettingsError, StoreUnavailable
from gateway.core.retry import Delivered
from gateway.settings.model import Settings
from gateway.settings.store import Redis, Store
from gateway.store.redis.client import RedisClient
from gateway.store.redis.job import RedisJobStore
from gateway.store.redis.layout import LAYOUT_VERSION, Layout
from gateway.store.redis.outbox import RedisOutbox
from tests.support.store import NOW, attempt_at, message, messages_of, new_job, timeline_of
from tests.support.valkey import Valkey, ValkeyCluster


@pytest.fixture
async def client(valkey: Valkey) -> AsyncIterator[RedisClient]:
    made = RedisClient(Redis(url=SecretStr(valkey.url)))
    yield made
    await made.close()


async def test_new_namespace_takes_this_layout(client: RedisClient) -> None:
    await Layout(client).open()
    await Layout(client).open()
    assert await client.command("GET", client.key("layout")) == b"%d" % LAYOUT_VERSION


async def test_newer_layout_is_refused_with_the_way_out(client: RedisClient) -> None:
    await client.command("SET", client.key("layout"), LAYOUT_VERSION + 1)
    with pytest.raises(SettingsError, match="use the newer gateway"):
        await Layout(client).open()


async def test_jobs_spread_over_every_node_of_a_cluster(valkey_cluster: ValkeyCluster) -> None:
    client = RedisClient(Redis(url=SecretStr(valkey_cluster.url), cluster=True))
    jobs = RedisJobStore(client, Layout(client))
    for number in range(60):
        change = new_job(f"job-{number}")
        assert await jobs.record(change, timeline_of(change), messages_of(change))
    sizes = await client.everywhere("DBSIZE")
    await client.close()
    assert len(sizes) == 3
    assert min(sizes) > 60


async def test_namespaces_do_not_see_each_other(valkey: Valkey) -> None:
    for name in ("one", "two"):
        client = RedisClient(Redis(url=SecretStr(valkey.url), namespace=name))
        jobs = RedisJobStore(client, Layout(client))
        assert list(await jobs.unfinished()) == []
        assert await jobs.record(new_job(), (), ())
        await client.close()


async def test_pruned_delivery_leaves_nothing_behind(client: RedisClient) -> None:
    outbox = RedisOutbox(client, Layout(client))
    await outbox.enqueue([message(1, sink="convex")])
    (held,) = await outbox.claim("convex", 1, NOW, 30.0)
    await outbox.settle(held, Delivered(), attempt_at(held, NOW), NOW)
    assert await outbox.prune(NOW + 1) == 1
    partition = Layout(client).of_job("job-1").prefix
    assert await client.everywhere("KEYS", "*") == [[partition + b":sinks"]]


# --- gateway check --connect ----------------------------------------------------------------------


async def dialled(url: str) -> tuple[str, str]:
    settings = Settings(
        store=Store(kind="redis"), redis=Redis(url=SecretStr(url), connect_timeout=0.5)
    )
    async with redis_component(settings) as component:
        try:
            reading = await component.check()
        except StoreUnavailable as error:
            return "away", error.detail
    return reading.status.value, reading.error or ""


async def test_check_says_whether_redis_can_be_used(client: RedisClient, valkey: Valkey) -> None:
    assert await dialled(valkey.url) == ("healthy", "")
    await client.command("SET", client.key("layout"), LAYOUT_VERSION + 1)
    status, said = await dialled(valkey.url)
    assert (status, "use the newer gateway" in said) == ("unhealthy", True)


async def test_check_warns_of_a_server_that_evicts(tmp_path: Path) -> None:
    with Valkey(tmp_path, maxmemory_policy="allkeys-lru") as server:
        status, said = await dialled(server.url)
        server.kill()
        assert (await dialled(server.url))[0] == "away"
    assert (status, "set noeviction" in said) == ("degraded", True)


async def test_check_without_redis_changes_nothing() -> None:
    async with redis_component(Settings()) as component:
        assert (await component.check()).status.value == "not_configured"
