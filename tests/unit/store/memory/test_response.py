"""The memory store's bound, and what goes when it is reached."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.freshness import StoredResponse, Terms
from gateway.store.memory import response as response_module
from gateway.store.memory.response import MemoryResponseStore, response_bytes
from gateway.telemetry.metric import Metrics
from tests.support.policy import sample

NOW = 1_700_000_000.0


def response(body: bytes = b"{}", fields: int = 4) -> StoredResponse:
    """One as it comes from a parser: none of its strings is shared with another's."""
    headers = CIMultiDict((f"X-Field-{n}-{len(body)}", f"value {n}") for n in range(fields))
    return StoredResponse(
        200, CIMultiDictProxy(headers), body, Terms(NOW + len(body), NOW + len(body) + 5.5)
    )


RESPONSE = response()
# What is allocated here, in the store, and in a dataclass's generated methods: other threads, and
# finalizers that the collector happens to run meanwhile, allocate too.
OURS = [tracemalloc.Filter(True, name) for name in (__file__, response_module.__file__, "<string>")]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


async def bytes_of_one(tag: str = "t", key: str = "a") -> int:
    store = MemoryResponseStore(2**30, Metrics())
    await store.store(tag, key, RESPONSE)
    return store.size_bytes


async def kept(store: MemoryResponseStore, keys: str) -> str:
    """Which of the keys are there, without a mark of having been asked for."""
    return "".join(key for key in keys if key in store._groups.get("t", {}))


@pytest.mark.parametrize(
    ("body_bytes", "fields", "count"),
    [(0, 0, 2000), (100, 4, 1000), (500, 12, 500), (9000, 8, 100)],
)
async def test_the_count_of_bytes_is_what_python_takes(
    body_bytes: int, fields: int, count: int
) -> None:
    store = MemoryResponseStore(2**30, Metrics())
    tracemalloc.start()
    try:
        for number in range(count):
            entry = response(bytes(body_bytes), fields)
            await store.store(f"job:{number:08}", f"/jobs/{number:08}/status\n*/*\n*", entry)
        taken = tracemalloc.take_snapshot().filter_traces(OURS)
    finally:
        tracemalloc.stop()

    # Not less than it is, so that the bound holds; little more, so that it can be used. What an
    # earlier test left on the interpreter's free lists is taken from there, and not traced.
    size_bytes = sum(trace.size for trace in taken.traces)
    assert 0.98 <= store.size_bytes / size_bytes < 1.25


async def test_what_was_not_asked_for_since_the_hand_came_by_goes_first(metrics: Metrics) -> None:
    store = MemoryResponseStore(3 * await bytes_of_one(), metrics)
    for key in "abc":
        await store.store("t", key, RESPONSE)
    await store.lookup("t", "a")
    await store.store("t", "d", RESPONSE)
    assert await kept(store, "abcd") == "acd"
    assert sample(metrics, "cache_evictions_total", tier="memory") == 1
    assert sample(metrics, "cache_bytes", tier="memory") == store.size_bytes

    await store.store("t", "e", RESPONSE)
    assert await kept(store, "acde") == "ade"


async def test_a_scan_of_cold_keys_spares_what_is_asked_for(metrics: Metrics) -> None:
    store = MemoryResponseStore(10 * await bytes_of_one(), metrics)
    for key in "abcde":
        await store.store("t", key, RESPONSE)
    for number in range(100):
        for key in "abcde":
            await store.lookup("t", key)
        await store.store("scan", str(number), RESPONSE)

    assert await kept(store, "abcde") == "abcde"


async def test_one_that_is_always_asked_for_does_not_stop_the_hand(metrics: Metrics) -> None:
    store = MemoryResponseStore(2 * await bytes_of_one(), metrics)
    for key in "abcdef":
        await store.store("t", key, RESPONSE)
        await store.lookup("t", key)

    assert len(await kept(store, "abcdef")) == 2


async def test_a_response_beyond_the_bound_is_not_kept(metrics: Metrics) -> None:
    store = MemoryResponseStore(16_000, metrics)
    await store.store("t", "a", RESPONSE)
    await store.store("t", "b", replace(RESPONSE, body=bytes(16_000)))

    assert await kept(store, "ab") == "a"


async def test_a_bound_that_shrinks_is_kept_at_the_next_store(metrics: Metrics) -> None:
    store = MemoryResponseStore(2**20, metrics)
    for key in "abcd":
        await store.store("t", key, RESPONSE)
    store.max_bytes = 2 * await bytes_of_one()
    await store.store("t", "e", RESPONSE)

    assert len(await kept(store, "abcde")) == 2


async def test_cleared_it_is_empty(metrics: Metrics) -> None:
    store = MemoryResponseStore(2**20, metrics)
    await store.store("t", "a", RESPONSE)
    store.clear()
    assert (store.size_bytes, await store.lookup("t", "a")) == (0, ())

    await store.store("t", "a", RESPONSE)
    assert await store.lookup("t", "a") == (RESPONSE,)


OPERATIONS = st.one_of(
    st.tuples(st.just("store"), st.sampled_from("abcd"), st.integers(0, 2), st.integers(0, 3000)),
    st.tuples(st.just("purge"), st.just(""), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("expire"), st.just(""), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("lookup"), st.sampled_from("abcd"), st.integers(0, 2), st.just(0)),
)


@given(st.lists(OPERATIONS, max_size=40))
async def test_the_books_are_kept(operations: list[tuple[str, str, int, int]]) -> None:
    store = MemoryResponseStore(9_000, Metrics())
    for operation, key, number, size in operations:
        tag = f"t{number}"
        match operation:
            case "store":
                vary = (("x", str(size % 2)),)
                await store.store(tag, key, replace(RESPONSE, body=bytes(size), vary=vary))
            case "purge":
                await store.purge(tag)
            case "expire":
                await store.expire(tag, NOW)
            case _:
                await store.lookup(tag, key)
        slots = [slot for group in store._groups.values() for slot in group.values()]
        assert store.size_bytes == sum(slot.size_bytes for slot in slots) <= 9_000
        for slot in slots:
            assert slot.size_bytes > sum(map(response_bytes, slot.variants)) > 0
        assert all(store._groups.values())
        assert in_order(store) == {id(slot) for slot in slots}
        assert store._hand is None or id(store._hand) in in_order(store)


def in_order(store: MemoryResponseStore) -> set[int]:
    """The slots from the oldest to the newest; both ways must agree."""
    forth, back = [], []
    slot = store._oldest
    while slot is not None:
        forth.append(id(slot))
        slot = slot.newer
    slot = store._newest
    while slot is not None:
        back.append(id(slot))
        slot = slot.older
    assert forth == back[::-1]
    return set(forth)
