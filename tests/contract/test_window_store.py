"""Every store of rate windows decides alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.window import Hit, Quota, WindowState, all_admit, count, microseconds
from gateway.settings.store import Redis
from gateway.store.memory.window import MemoryWindowStore
from gateway.store.memory.window_share import WindowShareStore
from gateway.store.redis.client import RedisClient
from gateway.store.redis.window import RedisWindowStore
from gateway.store.window import WindowStore

NOW = 1_700_000_000.0
QUOTA = Quota("burst", 2, 60.0)
HIT = Hit(QUOTA, "ip:192.0.2.1", 1, "ip:192.0.2.1")

BACKENDS = ("memory", "redis", "cluster")


@pytest.fixture(params=BACKENDS)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[WindowStore]:
    if request.param == "memory":
        yield MemoryWindowStore()
        return
    is_cluster = request.param == "cluster"
    server = request.getfixturevalue("valkey_cluster" if is_cluster else "valkey")
    client = RedisClient(Redis.model_validate({"url": server.url, "cluster": is_cluster}))
    await client.ping()
    for address in await client.primaries():
        await client.connection(address)
    yield RedisWindowStore(client, patience_seconds=5.0, own_clock=False)
    await client.close()


def of(**changes: Any) -> Hit:
    """The hit, against another quota."""
    return HIT._replace(quota=replace(QUOTA, **changes))


async def one(store: WindowStore, hit: Hit = HIT, now: float = NOW) -> WindowState:
    [state] = await store.hit([hit], now)
    return state


async def test_the_limit_is_admitted_and_no_more(store: WindowStore) -> None:
    assert [(await one(store)).admitted for _ in range(3)] == [True, True, False]


async def test_quota_comes_back_after_the_window(store: WindowStore) -> None:
    for _ in range(2):
        await one(store)
    state = await one(store)

    assert (await one(store, now=NOW + state.retry_after_seconds + 0.001)).admitted


@pytest.mark.parametrize(
    "other",
    [HIT._replace(key="ip:192.0.2.2"), of(policy="daily")],
    ids=["key", "policy"],
)
async def test_each_key_of_each_policy_has_its_own_window(store: WindowStore, other: Hit) -> None:
    for _ in range(2):
        await one(store)

    assert (await one(store, other)).remaining == 1


async def test_all_limits_of_a_request_count_or_none(store: WindowStore) -> None:
    narrow = of(policy="narrow", limit=1)
    await store.hit([HIT, narrow], NOW)

    states = await store.hit([HIT, narrow], NOW)

    assert [state.admitted for state in states] == [True, False]
    assert [state.remaining for state in states] == [1, 0]
    assert (await one(store)).remaining == 0


async def test_a_shadow_limit_stops_no_other(store: WindowStore) -> None:
    shadow = of(policy="trial", limit=1, shadow=True)
    await store.hit([HIT, shadow], NOW)
    states = await store.hit([HIT, shadow], NOW)

    assert [state.admitted for state in states] == [True, False]
    assert not (await one(store)).admitted


async def test_quotas_of_different_subjects_are_decided_together(store: WindowStore) -> None:
    route = HIT._replace(quota=replace(QUOTA, policy="all", limit=1), key="route:x", tag="")
    owner = HIT._replace(key="owner:a", tag="a")
    first = await store.hit([owner, route], NOW)
    second = await store.hit([owner, route], NOW)

    assert [state.admitted for state in first] == [True, True]
    assert [state.admitted for state in second] == [True, False]
    assert (await one(store, owner)).remaining == 0


async def test_a_changed_limit_keeps_the_counts(store: WindowStore) -> None:
    await one(store)

    assert (await one(store, of(limit=5))).remaining == 3


async def test_no_limit_is_no_decision(store: WindowStore) -> None:
    assert list(await store.hit([], NOW)) == []


async def test_memory_is_bounded_by_the_keys_used_last() -> None:
    store = MemoryWindowStore(max_keys=3)
    for number in range(10):
        await one(store)
        await one(store, of(limit=1)._replace(key=f"ip:{number}"))

    assert len(store) == 3
    assert not (await one(store)).admitted


async def test_memory_lets_go_of_what_is_spent() -> None:
    store = MemoryWindowStore()
    for number in range(5):
        await one(store, HIT._replace(key=f"ip:{number}"))
    for step in range(4):
        await one(store, now=NOW + 61 + step)

    assert len(store) == 1


async def test_workers_that_cannot_see_each_other_grant_a_share_of_a_limit_each() -> None:
    workers = [WindowShareStore(3) for _ in range(3)]
    admitted = [(await one(store, of(limit=7))).admitted for store in workers for _ in range(5)]

    assert sum(admitted) == 9  # 7, and at most one more for each of the others


async def test_a_share_is_never_less_than_a_request_costs() -> None:
    store = WindowShareStore(4)
    dear = of(limit=5)._replace(cost=4)

    assert [(await one(store, dear)).admitted for _ in range(2)] == [True, False]


async def test_a_share_admits_what_it_would_count() -> None:
    store = WindowShareStore(2)
    hits = store.counted([of(limit=4)])
    now = microseconds(NOW)
    admitted = []
    while all_admit(store.windows(hits), hits, now):
        admitted.append(count(store.windows(hits), hits, now)[0].remaining)

    assert admitted == [1, 0]
    assert not (await one(store, of(limit=4))).admitted
