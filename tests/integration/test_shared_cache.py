"""One cache of several replicas over a real Redis: shared, purged everywhere, mended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import SecretStr

from gateway.core.freshness import StoredResponse, Terms
from gateway.settings.store import Redis
from gateway.store.memory.response import MemoryResponseStore
from gateway.store.redis.client import RedisClient
from gateway.store.redis.response import MAX_KEYS, PARTITIONS, RedisResponseStore
from gateway.store.redis.subscription import Subscription
from gateway.store.response_tier import TieredResponseStore, purge_message
from gateway.telemetry.metric import Metrics
from tests.support.policy import sample
from tests.support.system import AnalysisApi, GatewayProcess, eventually
from tests.support.valkey import Valkey

MAX_BYTES = 2 * 1024**2


def response(body: bytes = b"x", seconds: float = 60) -> StoredResponse:
    now = time()
    return StoredResponse(200, CIMultiDictProxy(CIMultiDict()), body, Terms(now, now + seconds))


def groups(server: Valkey) -> list[str]:
    """Every group of cached responses, by its key."""
    found = server.execute("KEYS", "{gw:responses2:*}:????????????????????????????????")
    return [name.decode() for name in found]


def counted(server: Valkey) -> int:
    """What the gateway says that cached responses take there, in bytes."""
    names = server.execute("KEYS", "{gw:responses2:*}:bytes")
    return sum(int(server.execute("GET", name)) for name in names)


def used(server: Valkey) -> int:
    """What the server has allocated, in bytes."""
    with closing(server.client()) as client:
        return int(client.info("memory")["used_memory"])


class Replica:
    """What a gateway has: a memory, a client, and ears."""

    def __init__(self, name: str, url: str) -> None:
        settings = Redis(url=SecretStr(url), timeout=0.5, connect_timeout=0.5)
        self.client = RedisClient(settings)
        self.near = MemoryResponseStore(2**20, Metrics())
        self.metrics = Metrics()
        told = partial(purge_message, name)
        self.far = RedisResponseStore(
            self.client, time, told, max_bytes=64 * MAX_BYTES, metrics=self.metrics
        )
        self.store = TieredResponseStore(self.near, self.far, name, self.metrics, time)
        self.heard: list[tuple[str, bool]] = []
        self.store.listeners.append(lambda tag, terminal: self.heard.append((tag, terminal)))
        self.subscribed = 0
        self.subscription = Subscription(
            self.client, self.far.channel, self.store.hear, self._missed
        )
        self._task: asyncio.Task[None] | None = None

    def _missed(self) -> None:
        self.subscribed += 1
        self.store.missed()

    async def start(self) -> None:
        self._task = asyncio.create_task(self.subscription.run())
        await self.until(lambda: self.subscribed == 1)

    async def until(self, condition: object) -> None:
        async def holds() -> bool:
            assert callable(condition)
            return bool(condition())

        await eventually("it happens", holds, 15)

    async def found(self, key: str = "k") -> list[bytes]:
        return [each.body for each in await self.store.lookup("t", key)]

    async def put(self, body: bytes = b"x") -> None:
        await self.store.store("t", "k", response(body))
        await self.store.close()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.client.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A server of the test's own, since it may be killed."""
    with Valkey(tmp_path / "valkey") as running:
        yield running


@pytest.fixture
async def replicas(server: Valkey) -> AsyncIterator[Sequence[Replica]]:
    made = [Replica(name, server.url) for name in ("one", "two")]
    for each in made:
        await each.start()
    try:
        yield made
    finally:
        for each in made:
            await each.stop()


async def test_what_one_stores_all_have(replicas: Sequence[Replica]) -> None:
    one, two = replicas
    await one.put()

    assert await two.found() == [b"x"]
    assert two.near.peek("t", "k")


@pytest.mark.parametrize("terminal", [True, False])
async def test_a_purge_is_heard_by_all(replicas: Sequence[Replica], *, terminal: bool) -> None:
    one, two = replicas
    await one.put()
    await two.found()

    await (one.store.purge("t") if terminal else one.store.expire("t", time()))

    await two.until(lambda: two.heard == [("t", terminal)])
    left = two.near.peek("t", "k")
    assert [each.terms.is_fresh(time()) for each in left] == ([] if terminal else [False])
    assert one.heard == []


async def test_a_message_of_another_program_harms_nobody(
    replicas: Sequence[Replica], server: Valkey
) -> None:
    one, two = replicas
    server.execute("PUBLISH", one.far.channel.decode(), "hello")
    await one.store.purge("t")

    await two.until(lambda: two.heard == [("t", True)])


async def test_without_redis_each_goes_on_alone_and_heals(
    replicas: Sequence[Replica], server: Valkey
) -> None:
    one, two = replicas
    await one.put(b"old")
    assert await two.found() == [b"old"]
    server.kill()

    await one.store.purge("t")
    await one.put(b"new")
    assert (await one.found(), await two.found()) == ([b"new"], [b"old"])

    server.start()  # with nothing in it
    await two.until(lambda: one.subscribed == two.subscribed == 2)
    # Nobody told it of the purge: it trusts its memory no more.
    assert not two.near.peek("t", "k")

    async def shared() -> bool:
        await one.put(b"newest")
        return bool(await one.far.lookup("t", "k")) and await two.found() == [b"newest"]

    await eventually("both share again", shared, 15)


async def test_a_server_that_hangs_is_not_waited_for(
    replicas: Sequence[Replica], server: Valkey
) -> None:
    one, _ = replicas
    one.far._patience_seconds = 0.05
    await one.put()
    one.near.clear()
    server.pause()
    try:
        started = asyncio.get_running_loop().time()
        for _ in range(20):
            assert await one.found() == []
        assert asyncio.get_running_loop().time() - started < 0.5
    finally:
        server.resume()


async def test_every_group_has_an_end_and_a_bound(
    replicas: Sequence[Replica], server: Valkey
) -> None:
    one, _ = replicas
    for number in range(MAX_KEYS):
        await one.far.store("t", str(number), response(b""))
    [group] = groups(server)
    assert 0 < server.execute("PTTL", group) <= 1000 * (60 + 600)
    assert server.execute("HLEN", group) == MAX_KEYS + 1  # and the count

    await one.far.store("t", "one more", response(b""))

    assert await one.store.purge("t") == 1


async def test_all_of_it_is_bounded_and_the_newest_stays(
    replicas: Sequence[Replica], server: Valkey
) -> None:
    one, two = replicas
    one.far._partition_bytes = MAX_BYTES // PARTITIONS
    before = used(server)
    count = 4 * MAX_BYTES // 4000
    for number in range(count):
        await one.far.store(f"job:{number}", "k", response(random.randbytes(3000)))

    taken = used(server) - before
    assert 0.6 * MAX_BYTES < counted(server) <= MAX_BYTES
    assert 0.5 * MAX_BYTES < taken < 1.1 * MAX_BYTES
    assert await two.far.lookup(f"job:{count - 1}", "k")
    assert not await two.far.lookup("job:0", "k")
    evicted = count - len(groups(server))
    assert sample(one.metrics, "cache_evictions_total", tier="redis") == evicted > 0


async def test_one_answer_drives_not_all_others_out(
    replicas: Sequence[Replica], server: Valkey
) -> None:
    one, _ = replicas
    one.far._partition_bytes = MAX_BYTES // PARTITIONS
    await one.put(b"small")
    await one.far.store("t", "large", response(random.randbytes(MAX_BYTES // 8)))

    assert await one.far.lookup("t", "large") == ()
    assert await one.far.lookup("t", "k")


async def test_what_is_counted_is_what_is_there(
    replicas: Sequence[Replica], server: Valkey
) -> None:
    one, _ = replicas
    dice = random.Random(7)
    for _ in range(300):
        tag, key = f"job:{dice.randrange(4)}", f"{dice.randrange(6)}"
        match dice.randrange(8):
            case 0:
                await one.far.purge(tag)
            case 1:
                await one.far.expire(tag, time())
            case _:
                await one.far.store(tag, key, response(dice.randbytes(dice.randrange(2000))))

    found = 0
    for name in groups(server):
        keys = server.execute("HGETALL", name).items()
        found += 700 + sum(90 + len(value) for key, value in keys if key)
    assert counted(server) == found
    for number in range(4):
        await one.far.purge(f"job:{number}")
    assert counted(server) == 0


async def test_what_redis_ended_counts_no_more(replicas: Sequence[Replica], server: Valkey) -> None:
    one, _ = replicas
    answer = response(b"x" * 500)
    await one.far.store("t", "k", answer)
    once = counted(server)
    [group] = groups(server)
    partition, _, name = group.rpartition(":")
    server.execute("DEL", group)  # as at its end
    server.execute("ZADD", f"{partition}:ends", "1", name)

    await one.far.store("t", "k", answer)

    assert counted(server) == once


async def test_replicas_share_what_they_asked_the_upstream(server: Valkey, tmp_path: Path) -> None:
    shared: dict[str, Any] = {
        "redis": {"url": "${REDIS_URL}"},
        "environment": {"REDIS_URL": server.url},
        # Else the second, which has jobs of its own, might take this one over and ask for it.
        "jobs": {"watch": {"adopt": False}},
    }
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    async with (
        AnalysisApi(speed=1000) as api,
        GatewayProcess(folders[0], api.url, **shared) as one,
        GatewayProcess(folders[1], api.url, **shared) as two,
    ):
        job_id = await one.create()
        await one.finish(job_id)
        path = f"/api/v1/analysis/{job_id}/status"

        async def is_shared() -> bool:
            await one.request("GET", path)
            return bool(groups(server))

        async def hits() -> float:
            return (await two.metrics())["gateway_cache_lookups_total{result=hit,tier=redis}"]

        await eventually("the first has shared the status", is_shared)
        before = await hits()
        answer = await two.request("GET", path)
        assert answer.headers["Cache-Status"].startswith("gateway; hit")
        assert await hits() - before == 1

        server.kill()
        for each in (one, two):
            answer = await each.request("GET", path)
            assert (answer.status, answer.document["status"]) == (200, "Completed")
