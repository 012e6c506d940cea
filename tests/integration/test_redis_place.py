"""Places for jobs on a real server: never more than there are, however many processes ask."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest

from gateway.core.admission import Bound
from gateway.settings.store import Redis
from gateway.store.place import Place
from gateway.store.redis.client import RedisClient
from gateway.store.redis.place import RedisPlaceStore
from tests.support.valkey import Valkey, ValkeyCluster

PROCESSES, LIMIT, TURNS = 4, 3, 60
ALL, ALICE = Bound("all", 3), Bound("owner:alice", 2)
LONG = 60.0
IN_USE = b"{gw:places}:in-use"


@pytest.fixture(params=["valkey", "valkey_cluster"])
async def places(request: pytest.FixtureRequest) -> AsyncIterator[RedisPlaceStore]:
    server: Valkey | ValkeyCluster = request.getfixturevalue(request.param)
    cluster = request.param == "valkey_cluster"
    client = RedisClient(Redis.model_validate({"url": server.url, "cluster": cluster}))
    yield RedisPlaceStore(client)
    await client.close()


def job(name: str) -> Place:
    return Place(name, ("all", "owner:alice"))


async def take(places: RedisPlaceStore, name: str, *bounds: Bound, **given: Any) -> int | None:
    lease_seconds = given.pop("lease_seconds", LONG)
    return await places.take(name, bounds or (ALL, ALICE), lease_seconds, anyway=bool(given))


async def test_the_first_bound_that_is_reached_is_named_and_nothing_taken(
    places: RedisPlaceStore,
) -> None:
    assert await take(places, "a") is None
    assert await take(places, "b") is None
    assert await take(places, "c") == 1  # alice's
    assert await take(places, "c", ALL) is None  # so that the third of all was still there
    assert await take(places, "d") == 0


async def test_one_may_be_taken_though_there_is_none(places: RedisPlaceStore) -> None:
    for name in "ab":
        await take(places, name)

    assert await take(places, "c", anyway=True) == 1
    assert await take(places, "d", ALL) == 0


async def test_a_place_given_back_is_there_again_in_every_group(places: RedisPlaceStore) -> None:
    for name in "ab":
        await take(places, name)
    await places.free(job("a"))

    assert await take(places, "c") is None
    assert await take(places, "d") == 1


async def test_a_place_passed_on_is_one_place(places: RedisPlaceStore) -> None:
    await take(places, "a")
    await places.pass_on("a", job("job"), LONG)
    assert await take(places, "b") is None
    assert await take(places, "c") == 1

    await places.free(job("a"))  # a creation that has none any more
    assert await take(places, "c") == 1
    await places.free(job("job"))
    assert await take(places, "c") is None


async def test_a_place_held_by_many_replicas_is_one_place(places: RedisPlaceStore) -> None:
    for _ in range(3):
        await places.keep([job("job")], LONG)

    assert await take(places, "a") is None
    assert await take(places, "b") == 1


async def test_a_lease_that_ended_leaves_its_place_and_one_renewed_does_not(
    places: RedisPlaceStore,
) -> None:
    await places.keep([job("kept"), job("dead")], 0.05)
    await places.keep([job("kept")], LONG)

    async with asyncio.timeout(10):
        while await take(places, "a") is not None:  # noqa: ASYNC110 - the server's clock must pass
            await asyncio.sleep(0.01)
    assert await take(places, "b") == 1


async def test_many_are_kept_in_steps_and_nothing_is_left_of_them(
    valkey: Valkey, places: RedisPlaceStore
) -> None:
    await places.keep([Place(f"job-{n}", ("all",)) for n in range(1001)], LONG)
    assert await take(places, "a", Bound("all", 1001)) == 0
    assert await take(places, "a", Bound("all", 1002)) is None
    await places.keep([Place("short", ("key:ci",))], 0.05)

    with closing(valkey.client()) as direct:
        async with asyncio.timeout(10):
            while direct.exists("{gw:places}:key:ci"):  # noqa: ASYNC110 - the server's clock again
                await asyncio.sleep(0.01)


def _crowd(url: str, together: Any, seen: Any) -> None:
    """One replica: takes places, says how many are in use, gives them back; at last keeps them."""

    async def run() -> tuple[int, int, int]:
        client = RedisClient(Redis.model_validate({"url": url}))
        await client.ping()
        places = RedisPlaceStore(client)
        most = refused = 0

        async def takes(name: str) -> bool:
            return await places.take(name, [Bound("all", LIMIT)], LONG, anyway=False) is None

        async def create(name: str) -> None:
            nonlocal most, refused
            for turn in range(TURNS):
                place = Place(f"{name}-{turn}", ("all",))
                if not await takes(place.name):
                    refused += 1
                    continue
                most = max(most, await client.command("INCR", IN_USE))
                await client.command("DECR", IN_USE)
                await places.free(place)

        await asyncio.to_thread(together.wait)
        await asyncio.gather(*(create(f"{os.getpid()}-{number}") for number in range(LIMIT)))
        await asyncio.to_thread(together.wait)
        kept = sum([await takes(f"{os.getpid()}-kept-{number}") for number in range(LIMIT)])
        await client.close()
        return most, refused, kept

    seen.put(asyncio.run(run()))


def test_many_processes_never_have_more_places_than_there_are(valkey: Valkey) -> None:
    context = multiprocessing.get_context("spawn")
    together, seen = context.Barrier(PROCESSES), context.Queue()
    replicas = [
        context.Process(target=_crowd, args=(valkey.url, together, seen)) for _ in range(PROCESSES)
    ]
    for replica in replicas:
        replica.start()
    found = [seen.get(timeout=50) for _ in replicas]
    for replica in replicas:
        replica.join(timeout=10)

    assert max(most for most, _, _ in found) <= LIMIT
    assert sum(refused for _, refused, _ in found) > 0  # they were in each other's way
    assert sum(kept for _, _, kept in found) == LIMIT
    assert all(replica.exitcode == 0 for replica in replicas)
