"""Every store of API keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.credential import Key, hash_key
from gateway.core.error import InvalidRequest
from gateway.settings.store import Redis
from gateway.store.key import KeyStore
from gateway.store.redis.client import RedisClient
from gateway.store.redis.key import RedisKeyStore
from gateway.store.sqlite import Database, SqliteKeyStore

NOW = 1_700_000_000.0


BACKENDS = ("sqlite", "redis", "cluster")


@pytest.fixture(params=BACKENDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KeyStore]:
    if request.param == "sqlite":
        database = Database(tmp_path / "gateway.db")
        await database.open()
        yield SqliteKeyStore(database)
        await database.close()
        return
    is_cluster = request.param == "cluster"
    server = request.getfixturevalue("valkey_cluster" if is_cluster else "valkey")
    client = RedisClient(Redis.model_validate({"url": server.url, "cluster": is_cluster}))
    yield RedisKeyStore(client)
    await client.close()


def key(number: int = 1, owner: str = "alice", **fields: Any) -> Key:
    made = Key(
        f"key_{number}",
        hash_key(f"secret {number}"),
        owner,
        frozenset({"jobs:read", "webhooks"}),
        created_at=NOW + number,
    )
    return replace(made, **fields)


FULL = key(
    name="CI of größe",
    tier="partner",
    networks=("10.0.0.0/8", "fd00::/8"),
    lineage="key_0",
    expires_at=NOW + 3600,
)


async def test_a_key_comes_back_as_it_was_put_in(store: KeyStore) -> None:
    assert await store.add(FULL)

    record = await store.get("key_1")

    assert record is not None
    assert (record.key, record.last_used_at) == (FULL, None)
    assert list((await store.changes(0)).keys) == [FULL]


@pytest.mark.parametrize("twin", [key(1, sha256="f" * 64), key(2, sha256=key(1).sha256)])
async def test_neither_an_id_nor_a_hash_is_given_twice(store: KeyStore, twin: Key) -> None:
    await store.add(key(1))

    assert not await store.add(twin)
    assert [record.key for record in (await store.list(None, None, 9))[0]] == [key(1)]


async def test_what_is_not_there_is_none(store: KeyStore) -> None:
    assert await store.get("key_9") is None
    assert not await store.revoke("key_9", NOW)
    assert (await store.changes(0)).keys == []


async def test_changes_are_only_those_since(store: KeyStore) -> None:
    await store.add(key(1))
    await store.add(key(2))
    before = (await store.changes(0)).generation
    assert list((await store.changes(before)).keys) == []

    await store.revoke("key_1", NOW)
    changes = await store.changes(before)

    assert changes.generation > before
    assert list(changes.keys) == [key(1, revoked_at=NOW)]


async def test_a_key_is_revoked_once(store: KeyStore) -> None:
    await store.add(key(1))

    assert [await store.revoke("key_1", NOW + step) for step in range(2)] == [True, False]
    record = await store.get("key_1")
    assert record is not None
    assert record.key.revoked_at == NOW


async def test_of_many_revocations_at_once_one_is_the_first(store: KeyStore) -> None:
    await store.add(key(1))

    done = await asyncio.gather(*(store.revoke("key_1", NOW + step) for step in range(5)))

    assert done.count(True) == 1
    record = await store.get("key_1")
    assert record is not None
    assert record.key.revoked_at == NOW + done.index(True)


async def test_a_rotation_adds_the_successor_and_sets_the_end(store: KeyStore) -> None:
    await store.add(key(1))
    before = (await store.changes(0)).generation

    assert await store.rotate("key_1", key(2), NOW + 60, NOW)

    changed = {each.key_id: each for each in (await store.changes(before)).keys}
    assert changed == {"key_1": key(1, expires_at=NOW + 60), "key_2": key(2)}


async def test_a_rotation_never_makes_a_key_live_longer(store: KeyStore) -> None:
    await store.add(key(1, expires_at=NOW + 10))

    assert await store.rotate("key_1", key(2), NOW + 60, NOW)

    record = await store.get("key_1")
    assert record is not None
    assert record.key.expires_at == NOW + 10


@pytest.mark.parametrize("ended", [{"expires_at": NOW}, {"revoked_at": NOW - 1}])
async def test_a_key_that_has_ended_is_not_rotated(store: KeyStore, ended: dict[str, Any]) -> None:
    await store.add(key(1, **ended))

    assert not await store.rotate("key_1", key(2), NOW + 60, NOW)
    assert await store.get("key_2") is None


async def test_a_rotation_to_a_key_in_use_changes_nothing(store: KeyStore) -> None:
    await store.add(key(1))
    await store.add(key(2))
    before = (await store.changes(0)).generation

    assert not await store.rotate("key_1", key(2, owner="bob"), NOW + 60, NOW)
    assert await store.changes(before) == replace(await store.changes(0), keys=[])


async def test_pages_are_oldest_first_and_by_owner(store: KeyStore) -> None:
    for number in range(1, 6):
        await store.add(key(number, owner="alice" if number % 2 else "bob"))

    first, cursor = await store.list("alice", None, 2)
    rest, end = await store.list("alice", cursor, 2)

    assert [record.key.key_id for record in first] == ["key_1", "key_3"]
    assert ([record.key.key_id for record in rest], end) == (["key_5"], None)
    assert len((await store.list(None, None, 9))[0]) == 5


async def test_a_cursor_that_was_not_handed_out_is_refused(store: KeyStore) -> None:
    with pytest.raises(InvalidRequest):
        await store.list(None, "x", 2)


async def test_the_last_use_only_moves_on_and_changes_no_key(store: KeyStore) -> None:
    await store.add(key(1))
    before = (await store.changes(0)).generation

    await store.note_used({"key_1": NOW + 5, "from-a-file": NOW})
    await store.note_used({"key_1": NOW + 1})

    record = await store.get("key_1")
    [listed] = (await store.list(None, None, 9))[0]
    assert record is not None
    assert record.last_used_at == listed.last_used_at == NOW + 5
    assert (await store.changes(0)).generation == before
