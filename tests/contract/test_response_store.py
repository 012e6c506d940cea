"""Every store of responses keeps, forgets and bounds alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.freshness import StoredResponse
from gateway.store.base import ResponseStore
from gateway.store.memory.response import MAX_VARIANTS, MemoryResponseStore

NOW = 1_700_000_000.0
RESPONSE = StoredResponse(
    200,
    (("Content-Type", "application/json"), ("X", "1")),
    b"\x00{}",
    NOW,
    NOW + 5,
    tags=("job:1",),
)
MAX_BYTES = 16 * 1024

Backend = Callable[[int], ResponseStore]
BACKENDS: dict[str, Backend] = {"memory": MemoryResponseStore}


@pytest.fixture(params=list(BACKENDS))
def store(request: pytest.FixtureRequest) -> ResponseStore:
    return BACKENDS[request.param](MAX_BYTES)


def variant(language: str, **fields: object) -> StoredResponse:
    return replace(RESPONSE, vary=(("accept-language", language),), **fields)  # type: ignore[arg-type]


async def test_what_was_stored_is_found_as_it_was(store: ResponseStore) -> None:
    await store.store("k", RESPONSE)

    assert list(await store.lookup("k")) == [RESPONSE]
    assert list(await store.lookup("other")) == []


async def test_variants_are_found_newest_first(store: ResponseStore) -> None:
    for language in ("de", "en"):
        await store.store("k", variant(language))

    assert list(await store.lookup("k")) == [variant("en"), variant("de")]


async def test_an_equal_variant_is_replaced(store: ResponseStore) -> None:
    for body in (b"old", b"new"):
        await store.store("k", variant("de", body=body))

    assert [each.body for each in await store.lookup("k")] == [b"new"]


async def test_a_purge_forgets_every_response_with_the_tag(store: ResponseStore) -> None:
    await store.store("a", RESPONSE)
    await store.store("b", replace(RESPONSE, tags=("x", "job:1")))
    await store.store("c", replace(RESPONSE, tags=("job:2",)))

    assert await store.purge("job:1") == 2
    assert [len(await store.lookup(key)) for key in "abc"] == [0, 0, 1]
    assert await store.purge("job:1") == 0
    assert await store.purge("x") == 0


async def test_a_purge_spares_variants_without_the_tag(store: ResponseStore) -> None:
    await store.store("k", variant("de"))
    await store.store("k", variant("en", tags=()))

    assert await store.purge("job:1") == 1
    assert list(await store.lookup("k")) == [variant("en", tags=())]


async def test_expired_responses_stay_but_are_stale(store: ResponseStore) -> None:
    await store.store("a", RESPONSE)
    await store.store("b", replace(RESPONSE, tags=()))

    assert await store.expire("job:1", NOW + 1) == 1

    [stale], [fresh] = await store.lookup("a"), await store.lookup("b")
    assert (stale.fresh_until, stale.body) == (NOW + 1, RESPONSE.body)
    assert fresh.fresh_until == NOW + 5


async def test_to_expire_makes_nothing_fresh_again(store: ResponseStore) -> None:
    await store.store("a", RESPONSE)
    await store.expire("job:1", NOW + 60)

    assert [each.fresh_until for each in await store.lookup("a")] == [NOW + 5]


async def test_an_expired_response_can_be_purged(store: ResponseStore) -> None:
    await store.store("a", RESPONSE)
    await store.expire("job:1", NOW)

    assert await store.purge("job:1") == 1


async def test_a_response_beyond_the_bound_is_not_kept(store: ResponseStore) -> None:
    await store.store("k", replace(RESPONSE, body=bytes(MAX_BYTES)))

    assert list(await store.lookup("k")) == []


async def test_what_was_used_least_recently_goes_first() -> None:
    store = MemoryResponseStore(3 * (RESPONSE.size_bytes + 1))
    for key in "abc":
        await store.store(key, RESPONSE)
    await store.lookup("a")
    await store.store("d", RESPONSE)

    assert [len(await store.lookup(key)) for key in "abcd"] == [1, 0, 1, 1]


async def test_to_expire_is_no_use() -> None:
    store = MemoryResponseStore(2 * (RESPONSE.size_bytes + 1))
    await store.store("a", RESPONSE)
    await store.store("b", replace(RESPONSE, tags=("job:2",)))
    await store.expire("job:1", NOW)
    await store.store("c", replace(RESPONSE, tags=("job:3",)))

    assert [len(await store.lookup(key)) for key in "abc"] == [0, 1, 1]


async def test_variants_of_a_key_are_bounded() -> None:
    store = MemoryResponseStore(1024**2)
    for number in range(MAX_VARIANTS + 3):
        await store.store("k", variant(str(number)))

    found = await store.lookup("k")
    assert len(found) == MAX_VARIANTS
    assert found[0] == variant(str(MAX_VARIANTS + 2))


OPERATIONS = st.one_of(
    st.tuples(st.just("store"), st.sampled_from("abcd"), st.integers(0, 2), st.integers(0, 3000)),
    st.tuples(st.just("purge"), st.sampled_from("abcd"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("expire"), st.sampled_from("abcd"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("lookup"), st.sampled_from("abcd"), st.just(0), st.just(0)),
)


@given(st.lists(OPERATIONS, max_size=40))
async def test_the_books_are_kept(operations: list[tuple[str, str, int, int]]) -> None:
    store = MemoryResponseStore(8_000)
    for operation, key, number, size in operations:
        match operation:
            case "store":
                kept = variant(str(number), tags=(f"t{number}",), body=bytes(size))
                await store.store(key, kept)
            case "purge":
                await store.purge(f"t{number}")
            case "expire":
                await store.expire(f"t{number}", NOW)
            case _:
                await store.lookup(key)
        entries = store._entries
        sizes = [len(k) + each.size_bytes for k, found in entries.items() for each in found]
        tags = {(tag, k) for k, found in entries.items() for each in found for tag in each.tags}
        assert store.size_bytes == sum(sizes) <= 8_000
        assert {(tag, k) for tag, keys in store._tagged.items() for k in keys} == tags
        assert all(entries.values())
