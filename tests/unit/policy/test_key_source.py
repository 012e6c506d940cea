"""The keys in memory: up to date with the store, and good without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import structlog

from gateway.core.credential import Key, find_key, hash_key, index_keys
from gateway.core.error import StoreUnavailable
from gateway.policy.key_source import KeySource
from gateway.store.key import KeyChanges
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock
from tests.support.policy import NoKeys, sample
from tests.support.store import NOW

KEY = Key("key_1", hash_key("one"), "alice", frozenset({"jobs:read"}))
OTHER = Key("key_2", hash_key("two"), "bob", frozenset())


class Store(NoKeys):
    """Changes as told; each call of `publish` is one that another process made."""

    def __init__(self) -> None:
        self.log: list[Key] = []
        self.used: dict[str, float] = {}
        self.away = False
        self.asked: list[int] = []
        self._news = asyncio.Event()
        self.taken_up = asyncio.Event()

    def publish(self, *keys: Key) -> None:
        self.log.extend(keys)
        self._news.set()

    async def changes(self, after: int) -> KeyChanges:
        self.asked.append(after)
        if self.away:
            raise StoreUnavailable("away")
        return KeyChanges(len(self.log), self.log[after:])

    async def note_used(self, used: Mapping[str, float]) -> None:
        if self.away:
            raise StoreUnavailable("away")
        self.used |= used

    async def watch(self) -> AsyncIterator[None]:  # type: ignore[override]
        while True:
            await self._news.wait()
            self._news.clear()
            yield
            self.taken_up.set()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def keys(store: Store, metrics: Metrics, clock: FakeClock) -> KeySource:
    return KeySource(store, metrics, clock)


async def test_keys_of_the_store_are_taken_up(keys: KeySource, store: Store) -> None:
    store.publish(KEY, OTHER)
    await keys.refresh()

    assert keys.by_hash == {KEY.sha256: KEY, OTHER.sha256: OTHER}
    assert keys.by_id == {KEY.key_id: KEY, OTHER.key_id: OTHER}


async def test_only_what_changed_is_asked_for(keys: KeySource, store: Store) -> None:
    store.publish(KEY, OTHER)
    await keys.refresh()
    store.publish(replace(KEY, revoked_at=NOW))
    await keys.refresh()

    assert keys.by_hash == {OTHER.sha256: OTHER}
    assert keys.by_id == {OTHER.key_id: OTHER}
    assert store.asked == [0, 2]


async def test_what_has_ended_is_not_kept(keys: KeySource, store: Store, clock: FakeClock) -> None:
    store.publish(replace(KEY, expires_at=NOW), replace(OTHER, expires_at=NOW + 1))
    await keys.refresh()
    assert list(keys.by_hash) == [OTHER.sha256]

    clock.at += 1
    await keys.flush()
    assert keys.by_hash == {}
    assert keys.by_id == {}


async def test_a_store_set_back_is_read_anew(keys: KeySource, store: Store) -> None:
    store.publish(KEY, OTHER)
    await keys.refresh()
    del store.log[1:]
    await keys.refresh()

    assert keys.by_hash == {KEY.sha256: KEY}
    assert keys.by_id == {KEY.key_id: KEY}


async def test_news_of_another_process_are_taken_up_at_once(keys: KeySource, store: Store) -> None:
    following = asyncio.create_task(keys.follow())
    store.publish(KEY)
    await store.taken_up.wait()
    following.cancel()

    assert keys.by_hash == {KEY.sha256: KEY}
    assert keys.by_id == {KEY.key_id: KEY}


async def test_without_the_store_the_keys_known_last_hold(
    keys: KeySource, store: Store, metrics: Metrics
) -> None:
    store.publish(KEY)
    with structlog.testing.capture_logs() as lines:
        await keys.refresh_quietly()
        store.away = True
        for _ in range(3):
            await keys.refresh_quietly()
        assert keys.by_hash == {KEY.sha256: KEY}
        store.away = False
        await keys.refresh_quietly()

    assert [line["event"] for line in lines] == ["keys_away", "keys_back"]
    assert sample(metrics, "store_errors_total", store="keys") == 3


async def test_uses_are_written_down_once(keys: KeySource, store: Store) -> None:
    keys.used["key_1"] = NOW
    await keys.flush()

    assert (store.used, keys.used) == ({"key_1": NOW}, {})


async def test_uses_that_could_not_be_written_down_are_kept(keys: KeySource, store: Store) -> None:
    keys.used["key_1"] = NOW
    store.away = True
    with pytest.raises(StoreUnavailable):
        await keys.flush()
    store.away = False
    await keys.flush()

    assert store.used == {"key_1": NOW}


def test_a_lookup_costs_the_same_however_many_keys_there_are() -> None:
    """One hash and one comparison: counted, since a clock would tell of the machine."""

    class Counting(dict[str, Key]):
        looked = 0

        def get(self, digest: str, default: Any = None) -> Any:
            self.looked += 1
            return super().get(digest, default)

    for size in (10, 10_000):
        keys = Counting(index_keys(replace(OTHER, sha256=f"{n:064x}") for n in range(size)))
        keys[KEY.sha256] = KEY
        assert find_key("one", keys) == KEY
        assert keys.looked == 1
