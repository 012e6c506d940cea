"""Every store of rate windows decides alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.window import Hit, Window, WindowState, decide
from gateway.store.base import WindowStore
from gateway.store.memory.window import MemoryWindowStore

NOW = 1_700_000_000.0
HIT = Hit("burst", "ip:192.0.2.1", 2, 60.0)

Backend = Callable[[], WindowStore]
BACKENDS: dict[str, Backend] = {"memory": MemoryWindowStore}


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]


@pytest.fixture
def store(backend: Backend) -> WindowStore:
    return backend()


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
    [replace(HIT, key="ip:192.0.2.2"), replace(HIT, policy="daily")],
    ids=["key", "policy"],
)
async def test_each_key_of_each_policy_has_its_own_window(store: WindowStore, other: Hit) -> None:
    for _ in range(2):
        await one(store)

    assert (await one(store, other)).remaining == 1


async def test_all_limits_of_a_request_count_or_none(store: WindowStore) -> None:
    narrow = replace(HIT, policy="narrow", limit=1)
    await store.hit([HIT, narrow], NOW)

    states = await store.hit([HIT, narrow], NOW)

    assert [state.admitted for state in states] == [True, False]
    assert [state.remaining for state in states] == [1, 0]
    assert (await one(store)).remaining == 0


async def test_a_shadow_limit_stops_no_other(store: WindowStore) -> None:
    shadow = replace(HIT, policy="trial", limit=1, shadow=True)
    await store.hit([HIT, shadow], NOW)
    states = await store.hit([HIT, shadow], NOW)

    assert [state.admitted for state in states] == [True, False]
    assert not (await one(store)).admitted


async def test_a_changed_limit_keeps_the_counts(store: WindowStore) -> None:
    await one(store)

    assert (await one(store, replace(HIT, limit=5))).remaining == 3


async def test_no_limit_is_no_decision(store: WindowStore) -> None:
    assert list(await store.hit([], NOW)) == []


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 2)), max_size=30))
@pytest.mark.parametrize("name", list(BACKENDS))
async def test_a_store_decides_as_the_arithmetic_does(
    name: str, traffic: list[tuple[float, int]]
) -> None:
    store, window, at = BACKENDS[name](), Window(60), NOW
    for gap, cost in traffic:
        at += gap
        hit = replace(HIT, limit=4, cost=cost)
        assert tuple(await store.hit([hit], at)) == decide([window], [hit], at)


async def test_memory_is_bounded_by_the_keys_used_last() -> None:
    store = MemoryWindowStore(max_keys=3)
    for number in range(10):
        await one(store)
        await one(store, replace(HIT, key=f"ip:{number}", limit=1))

    assert len(store) == 3
    assert not (await one(store)).admitted


async def test_memory_lets_go_of_what_is_spent() -> None:
    store = MemoryWindowStore()
    for number in range(5):
        await one(store, replace(HIT, key=f"ip:{number}"))
    for step in range(4):
        await one(store, now=NOW + 61 + step)

    assert len(store) == 1
