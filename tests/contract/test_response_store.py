"""Every store of responses keeps, forgets and bounds alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import SecretStr

from gateway.core.freshness import StoredResponse, Terms
from gateway.settings.store import Redis
from gateway.store.memory.response import MAX_VARIANTS, MemoryResponseStore
from gateway.store.redis.client import RedisClient
from gateway.store.redis.response import RedisResponseStore
from gateway.store.response import ResponseStore
from gateway.store.response_tier import TieredResponseStore, purge_message
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock
from tests.support.valkey import Valkey, ValkeyCluster

NOW = 1_700_000_000.0
TAG = "job:1"
RESPONSE = StoredResponse(
    200,
    CIMultiDictProxy(CIMultiDict([("Content-Type", "application/json"), ("X", "1"), ("X", "2")])),
    b"\x00{}",
    Terms(NOW, NOW + 5, 1.0, 2.0, shared=True),
)
MAX_BYTES = 16 * 1024
MIB = 1024**2


@asynccontextmanager
async def memory_backend() -> AsyncIterator[ResponseStore]:
    yield MemoryResponseStore(MAX_BYTES, Metrics())


@asynccontextmanager
async def redis_backend(
    url: str, *, cluster: bool = False, tiered: bool = False
) -> AsyncIterator[ResponseStore]:
    metrics, clock = Metrics(), FakeClock(NOW)
    client = RedisClient(Redis(url=SecretStr(url), cluster=cluster))
    far = RedisResponseStore(
        client, clock, partial(purge_message, "r1"), max_bytes=MIB, metrics=metrics
    )
    store: ResponseStore = far
    if tiered:
        near = MemoryResponseStore(MAX_BYTES, metrics)
        store = TieredResponseStore(near, far, "r1", metrics, clock)
    try:
        yield store
    finally:
        await client.close()


def memory(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[ResponseStore]:
    return memory_backend()


def redis(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[ResponseStore]:
    server: Valkey = request.getfixturevalue("valkey")
    return redis_backend(server.url)


def redis_cluster(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[ResponseStore]:
    cluster: ValkeyCluster = request.getfixturevalue("valkey_cluster")
    return redis_backend(cluster.url, cluster=True)


def tiered(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[ResponseStore]:
    server: Valkey = request.getfixturevalue("valkey")
    return redis_backend(server.url, tiered=True)


Backend = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[ResponseStore]]
BACKENDS: dict[str, Backend] = {
    "memory": memory,
    "redis": redis,
    "redis_cluster": redis_cluster,
    "tiered": tiered,
}


@pytest.fixture(params=list(BACKENDS))
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ResponseStore]:
    async with BACKENDS[request.param](request) as opened:
        yield opened


def variant(language: str | None, **fields: Any) -> StoredResponse:
    return replace(RESPONSE, vary=(("accept-language", language),), **fields)


async def test_what_was_stored_is_found_as_it_was(store: ResponseStore) -> None:
    await store.store(TAG, "k", RESPONSE)

    assert list(await store.lookup(TAG, "k")) == [RESPONSE]
    assert list(await store.lookup(TAG, "other")) == []
    assert list(await store.lookup("job:2", "k")) == []


async def test_variants_are_found_newest_first(store: ResponseStore) -> None:
    variants = [variant(language) for language in ("de", "", None)]
    for each in variants:
        await store.store(TAG, "k", each)

    assert list(await store.lookup(TAG, "k")) == variants[::-1]


@pytest.mark.parametrize("body", [b"", b"x" * 5000, bytes(range(256)) * 400])
async def test_any_body_comes_back_as_it_was(store: ResponseStore, body: bytes) -> None:
    response = replace(RESPONSE, body=body[:12_000])
    await store.store(TAG, "k", response)

    assert list(await store.lookup(TAG, "k")) == [response]


@pytest.mark.parametrize("text", ["uri:/x?y={z}\udcff", "k" * 2000, "a\nb\0"])
async def test_any_text_is_a_key_and_a_tag(store: ResponseStore, text: str) -> None:
    response = variant(text[:20])
    await store.store(text, text, response)

    assert list(await store.lookup(text, text)) == [response]
    assert await store.purge(text) == 1


async def test_an_equal_variant_is_replaced(store: ResponseStore) -> None:
    for body in (b"old", b"new"):
        await store.store(TAG, "k", variant("de", body=body))

    assert [each.body for each in await store.lookup(TAG, "k")] == [b"new"]


async def test_a_purge_forgets_every_response_with_the_tag(store: ResponseStore) -> None:
    await store.store(TAG, "a", variant("de"))
    await store.store(TAG, "a", variant("en"))
    await store.store(TAG, "b", RESPONSE)
    await store.store("job:2", "a", RESPONSE)

    assert await store.purge(TAG) == 3
    assert [len(await store.lookup(TAG, key)) for key in "ab"] == [0, 0]
    assert len(await store.lookup("job:2", "a")) == 1
    assert await store.purge(TAG) == 0
    assert await store.purge("other") == 0


async def test_expired_responses_stay_but_are_stale(store: ResponseStore) -> None:
    await store.store(TAG, "a", RESPONSE)
    await store.store("job:2", "a", RESPONSE)

    assert await store.expire(TAG, NOW + 1) == 1

    [stale], [fresh] = await store.lookup(TAG, "a"), await store.lookup("job:2", "a")
    assert stale == replace(RESPONSE, terms=RESPONSE.terms.expired(NOW + 1))
    assert fresh == RESPONSE
    assert await store.expire("other", NOW) == 0


async def test_to_expire_makes_nothing_fresh_again(store: ResponseStore) -> None:
    await store.store(TAG, "a", RESPONSE)
    await store.expire(TAG, NOW + 60)

    assert [each.terms.fresh_until for each in await store.lookup(TAG, "a")] == [NOW + 5]


async def test_an_expired_response_can_be_purged_or_replaced(store: ResponseStore) -> None:
    await store.store(TAG, "a", RESPONSE)
    await store.expire(TAG, NOW)
    await store.store(TAG, "a", RESPONSE)
    assert list(await store.lookup(TAG, "a")) == [RESPONSE]

    await store.expire(TAG, NOW)
    assert await store.purge(TAG) == 1


async def test_variants_of_a_key_are_bounded(store: ResponseStore) -> None:
    for number in range(MAX_VARIANTS + 3):
        await store.store(TAG, "k", variant(str(number), body=b""))

    found = await store.lookup(TAG, "k")
    assert [each.vary[0][1] for each in found] == [
        str(number) for number in range(MAX_VARIANTS + 2, 2, -1)
    ]
