"""Rate windows on a real server: the Lua is the Python, and many processes share one limit."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.error import StoreUnavailable
from gateway.core.window import Hit, Quota, Window, decide, microseconds
from gateway.policy.shared_window import SharedWindows
from gateway.settings.store import Redis
from gateway.store.memory.window import MemoryWindowStore
from gateway.store.redis.client import RedisClient
from gateway.store.redis.window import RedisWindowStore
from gateway.telemetry.metric import Metrics
from tests.support.valkey import Valkey

NOW = 1_700_000_000.0
PROCESSES = 4
LIMIT = 200

Open = Callable[..., Any]


async def connected(url: str) -> RedisClient:
    client = RedisClient(Redis.model_validate({"url": url}))
    for address in await client.primaries():
        await client.connection(address)
    return client


@pytest.fixture
async def client(valkey: Valkey) -> AsyncIterator[RedisClient]:
    made = await connected(valkey.url)
    yield made
    await made.close()


@st.composite
def traffic(draw: st.DrawFn) -> list[tuple[float, list[Hit]]]:
    """Requests as (time, hits): several quotas at once, at the edges of windows, in any order."""
    quotas = [
        Quota(
            f"q{number}",
            draw(st.integers(1, 6)),
            draw(st.sampled_from([0.001, 0.25, 1.0, 7.3, 60.0, 86_400.0])),
            shadow=draw(st.booleans()),
        )
        for number in range(draw(st.integers(1, 3)))
    ]
    edge = st.sampled_from([0.0, 0.009, 0.01, 0.011, 0.5, 0.99, 1.0, 1.005, 1.01, 1.02, 3.0, -0.3])
    gap = st.one_of(edge, st.floats(-1.5, 1.5))
    at = NOW + draw(st.floats(0.0, 1.0))
    requests = []
    for share in draw(st.lists(gap, max_size=40)):
        at += share * quotas[0].window_seconds
        chosen = [quota for quota in quotas if draw(st.booleans())]
        requests.append((at, [Hit(quota, "k", draw(st.integers(1, 3)), "t") for quota in chosen]))
    return requests


_prefixes = itertools.count()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(traffic())
async def test_the_lua_decides_as_the_python_does(
    client: RedisClient, requests: list[tuple[float, list[Hit]]]
) -> None:
    shared = RedisWindowStore(client, patience_seconds=5.0, own_clock=False)
    windows: dict[Quota, Window] = {}
    prefix = f"{next(_prefixes)}"
    for at, hits in requests:
        here = [windows.setdefault(hit.quota, Window(hit.quota.bucket)) for hit in hits]
        found = await shared.hit([hit._replace(key=prefix) for hit in hits], at)
        assert list(found) == decide(here, hits, microseconds(at))


async def test_the_ring_is_the_same_all_the_way_round(client: RedisClient) -> None:
    shared = RedisWindowStore(client, patience_seconds=5.0, own_clock=False)
    quota = Quota("q", 3, 101.0)
    hit, window, at = Hit(quota, "k", 1, "t"), Window(quota.bucket), microseconds(NOW)
    for step in range(300):  # half a ring at a time: each slot is met again as it falls due
        at += quota.bucket * (50 + step % 2 if step % 7 else 1)
        [found] = await shared.hit([hit], at / 1e6)
        assert [found] == decide([window], [hit], microseconds(at / 1e6))


async def test_a_window_costs_the_same_memory_whatever_its_limit(
    client: RedisClient, valkey: Valkey
) -> None:
    store = RedisWindowStore(client, patience_seconds=5.0)
    hit = Hit(Quota("q", 10**9, 60.0), "k", 1, "t")
    sizes = set()
    for _ in range(300):
        await store.hit([hit], NOW)
        with closing(valkey.client()) as direct:
            [key] = direct.keys("*")
            sizes.add(direct.strlen(key))
            assert 0 < direct.pttl(key) <= 60_602

    assert sizes == {20 + 101 * 4}


async def test_calls_of_one_turn_leave_in_one_write(client: RedisClient) -> None:
    store = RedisWindowStore(client, patience_seconds=5.0)
    [address] = await client.primaries()
    connection = await client.connection(address)
    writes = []
    real: Any = connection._transport

    class Counting:
        def write(self, data: bytes) -> None:
            writes.append(data.count(b"EVALSHA"))
            real.write(data)

    connection._transport = Counting()  # type: ignore[assignment]
    await store.hit([Hit(Quota("q", 99, 60.0), "k", 1, "t")], NOW)
    writes.clear()
    await asyncio.gather(
        *(store.hit([Hit(Quota("q", 99, 60.0), f"k{n}", 1, "t")], NOW) for n in range(20))
    )
    connection._transport = real

    assert writes == [20]


def _hammer(url: str, started: Any, admitted: Any) -> None:
    """One replica: as many requests as it can until the limit refuses them all."""

    async def run() -> int:
        client = await connected(url)
        store = RedisWindowStore(client, patience_seconds=5.0)
        hit = Hit(Quota("shared", LIMIT, 3600.0), "k", 1, "t")
        await asyncio.to_thread(started.wait)
        total = 0
        for _ in range(10):
            decided = await asyncio.gather(*(store.hit([hit], time.time()) for _ in range(20)))
            total += sum(state.admitted for [state] in decided)
        await client.close()
        return total

    admitted.put(asyncio.run(run()))


def test_many_processes_never_admit_more_than_the_limit(valkey: Valkey) -> None:
    context = multiprocessing.get_context("spawn")
    started, admitted = context.Barrier(PROCESSES), context.Queue()
    replicas = [
        context.Process(target=_hammer, args=(valkey.url, started, admitted))
        for _ in range(PROCESSES)
    ]
    for replica in replicas:
        replica.start()
    counts = [admitted.get(timeout=50) for _ in replicas]
    for replica in replicas:
        replica.join(timeout=10)

    assert sum(counts) == LIMIT
    assert all(replica.exitcode == 0 for replica in replicas)


async def test_clocks_that_differ_share_one_window(client: RedisClient) -> None:
    store = RedisWindowStore(client, patience_seconds=5.0)
    hit = Hit(Quota("q", 2, 60.0), "k", 1, "t")
    for skew in (0.0, -3600.0):
        await store.hit([hit], time.time() + skew)

    [state] = await store.hit([hit], time.time() + 3600)

    assert not state.admitted


@pytest.fixture
def stalled(tmp_path: Path) -> Any:
    """A server that a test may stop and continue."""
    with Valkey(tmp_path) as server:
        yield server


async def test_a_server_that_is_late_costs_a_request_no_more_than_the_patience(
    stalled: Valkey,
) -> None:
    client = await connected(stalled.url)
    windows = SharedWindows(
        RedisWindowStore(client, patience_seconds=0.05), MemoryWindowStore(), Metrics(), time.time
    )
    hits = [Hit(Quota("q", 9, 60.0), "k", 1, "t")]
    assert await windows.hit(hits, time.time()) is not None

    with closing(stalled.client()) as direct:
        process = direct.info("server")["process_id"]
    os.kill(process, 19)  # SIGSTOP: the connection stays, no answer comes
    try:
        begin = time.perf_counter()
        assert await windows.hit(hits, time.time()) is None
        assert time.perf_counter() - begin < 0.5
        begin = time.perf_counter()
        for _ in range(100):
            assert await windows.hit(hits, time.time()) is None
        assert time.perf_counter() - begin < 0.05
    finally:
        os.kill(process, 18)  # SIGCONT

    async with asyncio.timeout(10):
        while await windows.hit(hits, time.time()) is None:  # noqa: ASYNC110 - it is another process's turn
            await asyncio.sleep(0.02)
    await client.close()


async def test_without_a_connection_nobody_waits_for_one(stalled: Valkey) -> None:
    client = RedisClient(Redis.model_validate({"url": stalled.url}))
    store = RedisWindowStore(client, patience_seconds=0.05)
    hits = [Hit(Quota("q", 9, 60.0), "k", 1, "t")]
    with pytest.raises(StoreUnavailable, match="not connected yet"):
        await store.hit(hits, NOW)

    for address in await client.primaries():
        await client.connection(address)
    assert (await store.hit(hits, NOW))[0].admitted
    await client.close()
