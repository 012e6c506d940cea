"""One of many replicas: its clock is the server's, it hears of the others, and it is missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from pydantic import SecretStr

from gateway.core.error import StoreUnavailable
from gateway.settings.store import Redis
from gateway.store.redis.client import RedisClient
from gateway.store.redis.clock import RedisClock
from gateway.store.redis.job import RedisJobStore
from gateway.store.redis.layout import Layout
from gateway.store.redis.replica import FORGET_SECONDS, RedisReplicas
from gateway.store.redis.subscription import Subscription
from tests.support.store import NOW, new_job, next_change, timeline_of
from tests.support.valkey import Valkey, ValkeyCluster


def client_of(url: str, *, cluster: bool = False) -> RedisClient:
    return RedisClient(Redis(url=SecretStr(url), cluster=cluster, timeout=0.5))


@pytest.fixture(params=["single", "cluster"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[RedisClient]:
    if request.param == "single":
        made = client_of(request.getfixturevalue("valkey").url)
    else:
        made = client_of(request.getfixturevalue("valkey_cluster").url, cluster=True)
    yield made
    await made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path, append_only=True) as server:
        yield server


class Heard:
    """What a subscription told."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, int]] = []
        self.gaps = 0

    def hear(self, notice: bytes) -> None:
        job_id, version = orjson.loads(notice)
        self.notices.append((job_id, version))

    def missed(self) -> None:
        self.gaps += 1

    async def until_notices(self, number: int) -> None:
        async with asyncio.timeout(10):
            while len(self.notices) < number:  # noqa: ASYNC110 - told by another's task
                await asyncio.sleep(0.005)

    async def until_gaps(self, number: int) -> None:
        async with asyncio.timeout(10):
            while self.gaps < number:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(client: RedisClient) -> AsyncIterator[Heard]:
    heard = Heard()
    notices = Subscription(client, Layout(client).channel, heard.hear, heard.missed)
    task = asyncio.create_task(notices.run())
    try:
        await heard.until_gaps(1)
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_change_is_heard_of_with_its_version(client: RedisClient) -> None:
    jobs = RedisJobStore(client, Layout(client))
    async with listening(client) as heard:
        change = new_job()
        await jobs.record(change, timeline_of(change), ())
        job = await jobs.get("job-1")
        assert job is not None
        await jobs.record(next_change(job, NOW + 1, percentage=5.0), (), ())
        await heard.until_notices(2)
    assert heard.notices == [("job-1", 1), ("job-1", 2)]


async def test_refused_change_is_not_heard_of(client: RedisClient) -> None:
    jobs = RedisJobStore(client, Layout(client))
    async with listening(client) as heard:
        for name in ("job-1", "job-1", "job-2"):
            await jobs.record(new_job(name), (), ())
        await heard.until_notices(2)
    assert heard.notices == [("job-1", 1), ("job-2", 1)]


async def test_every_node_of_a_cluster_tells(valkey_cluster: ValkeyCluster) -> None:
    writer = client_of(valkey_cluster.url, cluster=True)
    jobs = RedisJobStore(writer, Layout(writer))
    for node in valkey_cluster.nodes:
        reader = client_of(node.url)
        async with listening(reader) as heard:
            await jobs.record(new_job(f"job-{node.port}"), (), ())
            await heard.until_notices(1)
        await reader.close()
    await writer.close()


async def test_time_is_the_servers_whatever_this_hosts_clock_does(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_time = time.time()
    monkeypatch.setattr(time, "time", lambda: true_time + 86_400)
    clock = RedisClock(client)
    assert clock.now() > true_time + 80_000
    await clock.sync()
    assert abs(clock.now() - true_time) < 5
    monkeypatch.setattr(time, "time", lambda: true_time - 86_400)
    assert abs(clock.now() - true_time) < 5


async def test_time_goes_on_while_the_server_is_away(own: Valkey) -> None:
    client = client_of(own.url)
    clock = RedisClock(client)
    await clock.sync()
    own.kill()
    with pytest.raises(StoreUnavailable):
        await clock.sync()
    first = clock.now()
    assert first <= clock.now()
    assert abs(first - time.time()) < 5
    await client.close()


async def test_replicas_live_until_they_leave_or_fall_silent(client: RedisClient) -> None:
    replicas = RedisReplicas(client)
    assert await replicas.beat("a", "pod-a", NOW, NOW + 30) == 1
    assert await replicas.beat("b", "pod-b", NOW + 20, NOW + 50) == 2
    assert await replicas.beat("b", "pod-b", NOW + 31, NOW + 61) == 1
    assert list(await replicas.gone(NOW + 29)) == []
    assert list(await replicas.gone(NOW + 30)) == ["pod-a"]
    await replicas.expect({"pod-a", "pod-d"}, NOW + 10)  # of the first something is known
    assert sorted(await replicas.gone(NOW + 10)) == ["pod-d"]
    await replicas.leave("b")
    assert await replicas.beat("c", "pod-c", NOW + 31, NOW + 61) == 1
    await replicas.beat("c", "pod-c", NOW + 31 + FORGET_SECONDS, NOW + 61 + FORGET_SECONDS)
    assert "pod-a" not in await replicas.gone(NOW + 2 * FORGET_SECONDS)
