"""Every store of idempotency keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.idempotency import Entry, Reservation, StoredAnswer
from gateway.settings.store import Redis
from gateway.store.idempotency import IdempotencyStore
from gateway.store.redis.client import RedisClient
from gateway.store.redis.idempotency import RedisIdempotencyStore
from gateway.store.sqlite import Database
from gateway.store.sqlite.idempotency import SqliteIdempotencyStore
from tests.support.valkey import Valkey

NOW = 1_700_000_000.0
FIRST = Reservation("alice", 'k "1"', "f" * 64, "t1", "req-1", NOW, NOW + 60.25, NOW + 3600.5)
TWIN = replace(FIRST, token="t2", request_id="req-2", started_at=NOW + 1)
ANSWER = StoredAnswer(
    201, (("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")), b"\x00\xff"
)


BACKENDS = ("sqlite", "redis", "cluster")


@pytest.fixture(params=BACKENDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[IdempotencyStore]:
    if request.param == "sqlite":
        database = Database(tmp_path / "gateway.db")
        await database.open()
        yield SqliteIdempotencyStore(database)
        await database.close()
        return
    is_cluster = request.param == "cluster"
    server = request.getfixturevalue("valkey_cluster" if is_cluster else "valkey")
    client = RedisClient(Redis.model_validate({"url": server.url, "cluster": is_cluster}))
    yield RedisIdempotencyStore(client)
    await client.close()


async def test_the_first_has_the_key_and_a_twin_sees_it(store: IdempotencyStore) -> None:
    assert await store.begin(FIRST, NOW) is None
    assert await store.begin(TWIN, NOW) == Entry(FIRST)


async def test_of_many_at_once_one_has_the_key(store: IdempotencyStore) -> None:
    twins = [replace(FIRST, token=f"t{number}") for number in range(20)]

    found = await asyncio.gather(*(store.begin(each, NOW) for each in twins))

    assert found.count(None) == 1
    [holder] = [twin for twin, entry in zip(twins, found, strict=True) if entry is None]
    assert {entry for entry in found if entry is not None} == {Entry(holder)}


async def test_an_answer_comes_back_byte_for_byte(store: IdempotencyStore) -> None:
    await store.begin(FIRST, NOW)
    assert await store.finish(FIRST, ANSWER)

    assert await store.begin(TWIN, NOW) == Entry(FIRST, ANSWER)


async def test_a_freed_key_may_be_used_again(store: IdempotencyStore) -> None:
    await store.begin(FIRST, NOW)
    assert await store.free(FIRST)

    assert await store.begin(TWIN, NOW) is None


async def test_an_interrupted_request_stays_with_its_lease_over(store: IdempotencyStore) -> None:
    await store.begin(FIRST, NOW)
    assert await store.interrupt(FIRST)

    entry = await store.begin(TWIN, NOW)
    assert entry is not None
    assert (entry.answer, entry.reservation.request_id) == (None, "req-1")
    assert entry.reservation.lease_until < NOW


@pytest.mark.parametrize("other", [replace(FIRST, scope="bob"), replace(FIRST, key="k2")])
async def test_scopes_and_keys_are_apart(store: IdempotencyStore, other: Reservation) -> None:
    await store.begin(FIRST, NOW)

    assert await store.begin(other, NOW) is None


async def test_only_the_holder_settles_and_only_once(store: IdempotencyStore) -> None:
    await store.begin(FIRST, NOW)
    assert not await store.finish(TWIN, ANSWER)
    assert not await store.free(TWIN)
    assert not await store.interrupt(TWIN)

    assert await store.finish(FIRST, ANSWER)
    assert not await store.finish(FIRST, replace(ANSWER, status=500))
    assert not await store.free(FIRST)
    assert not await store.interrupt(FIRST)
    assert await store.begin(TWIN, NOW) == Entry(FIRST, ANSWER)


async def test_what_has_expired_is_free_and_pruned(store: IdempotencyStore) -> None:
    await store.begin(FIRST, NOW)
    await store.finish(FIRST, ANSWER)
    later = replace(TWIN, expires_at=NOW + 9000)

    assert await store.begin(later, NOW + 3600) is not None
    assert await store.begin(later, NOW + 3600.5) is None
    assert await store.prune(NOW + 8999) == 0
    await store.prune(NOW + 9000)  # a server that forgets by itself has nothing to delete
    assert await store.begin(replace(later, expires_at=NOW + 9001), NOW + 9000) is None


async def test_a_new_process_voids_what_was_under_way_in_its_file(tmp_path: Path) -> None:
    database = Database(tmp_path / "gateway.db")
    await database.open()
    store = SqliteIdempotencyStore(database)
    done = replace(FIRST, key="done")
    await store.begin(FIRST, NOW)
    await store.begin(done, NOW)
    await store.finish(done, ANSWER)

    assert await store.void() == 1
    entry = await store.begin(TWIN, NOW)
    assert entry is not None
    assert entry.reservation.lease_until < NOW
    assert await store.begin(replace(TWIN, key="done"), NOW) == Entry(done, ANSWER)
    assert await store.prune(NOW + 3601) == 2
    await database.close()


async def test_redis_forgets_by_itself(valkey: Valkey) -> None:
    client = RedisClient(Redis.model_validate({"url": valkey.url}))
    await RedisIdempotencyStore(client).begin(FIRST, NOW)

    with closing(valkey.client()) as direct:
        [key] = direct.keys("*")
        assert "alice" not in str(key)  # clients' text is no part of a name
        assert 3_590_000 < direct.pttl(key) <= 3_600_500
    await client.close()
