"""The client of Redis against real servers: one that is late, away, demoted, full or moved."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.core.error import StoreUnavailable
from gateway.settings.store import Redis
from gateway.store.redis.client import RedisClient
from gateway.store.redis.failure import ReplyError
from gateway.store.redis.script import Script
from tests.support.valkey import Valkey, ValkeyCluster


def script(text: str) -> Script:
    return Script("test", text.encode(), hashlib.sha1(text.encode()).hexdigest().encode())  # noqa: S324 - the protocol's


ECHO = script("return {KEYS[1], ARGV[1]}")
COUNT = script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


def client_of(url: str, **fields: Any) -> RedisClient:
    return RedisClient(Redis.model_validate({"url": url, **fields}))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path, append_only=True) as server:
        yield server


@pytest.fixture(params=["single", "cluster"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[RedisClient]:
    if request.param == "single":
        made = client_of(request.getfixturevalue("valkey").url)
    else:
        made = client_of(request.getfixturevalue("valkey_cluster").url, cluster=True)
    yield made
    await made.close()


@pytest.fixture
async def single(own: Valkey) -> AsyncIterator[RedisClient]:
    made = client_of(own.url, timeout=0.5)
    yield made
    await made.close()


async def until_answered(client: RedisClient, key: bytes | None = None) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await client.command("EXISTS", key or client.key("probe"))
            except StoreUnavailable:
                await asyncio.sleep(0.02)
            else:
                return


# --- answers --------------------------------------------------------------------------------------


async def test_script_is_run_whether_the_server_knows_it_or_not(client: RedisClient) -> None:
    key = client.key("a")
    assert await client.run(COUNT, [key], [2]) == 2
    assert await client.run(COUNT, [key], [3]) == 5
    await client.everywhere("SCRIPT", "FLUSH")
    assert await client.run(COUNT, [key], [4]) == 9


async def test_concurrent_calls_get_their_own_answers(client: RedisClient) -> None:
    keys = [client.key("k", tag=str(n)) for n in range(300)]
    answers = await asyncio.gather(*(client.run(ECHO, [key], [key[::-1]]) for key in keys))
    assert answers == [[key, key[::-1]] for key in keys]


async def test_calls_of_one_turn_leave_in_one_write(own: Valkey) -> None:
    client = client_of(own.url)
    await client.ping()
    connection = await client.connection(("127.0.0.1", own.port))
    writes: list[bytes] = []
    assert connection._transport is not None
    transport = connection._transport

    class Counting:
        def write(self, data: bytes) -> None:
            writes.append(data)
            transport.write(data)

        def abort(self) -> None:
            transport.abort()

    connection._transport = Counting()  # type: ignore[assignment]
    await asyncio.gather(*(client.command("INCR", client.key("n")) for _ in range(50)))
    await client.close()
    assert len(writes) == 1


async def test_caller_that_gives_up_takes_nothing_from_the_others(client: RedisClient) -> None:
    key = client.key("a")
    first = asyncio.ensure_future(client.command("SET", key, "x"))
    second = asyncio.ensure_future(client.command("GET", key))
    await asyncio.sleep(0)
    first.cancel()
    assert await second in (b"x", None)
    assert await client.command("PTTL", key) in (-1, -2)


async def test_keys_of_one_tag_share_a_node(client: RedisClient) -> None:
    both = script("redis.call('SET', KEYS[1], 1) return redis.call('SET', KEYS[2], 2)")
    for tag in map(str, range(20)):
        assert await client.run(both, [client.key("a", tag=tag), client.key("b", tag=tag)]) == b"OK"


async def test_defect_of_a_script_is_not_taken_for_an_outage(client: RedisClient) -> None:
    mistaken = script("redis.call('SADD', KEYS[1], 'x') return redis.call('INCR', KEYS[1])")
    with pytest.raises(ReplyError, match="WRONGTYPE"):
        await client.run(mistaken, [client.key("a")])


# --- outages --------------------------------------------------------------------------------------


async def test_server_that_is_away_is_unavailable_and_found_again(
    own: Valkey, single: RedisClient
) -> None:
    await single.command("SET", single.key("kept"), "x")
    own.kill()
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{own.port}"):
        await single.ping()
    own.start()
    await until_answered(single)
    assert await single.command("GET", single.key("kept")) == b"x"


async def test_every_call_under_way_ends_when_the_server_dies(
    own: Valkey, single: RedisClient
) -> None:
    await single.ping()
    own.pause()
    calls = [asyncio.ensure_future(single.command("INCR", single.key("n"))) for _ in range(20)]
    await asyncio.sleep(0)
    own.kill()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}


async def test_late_answer_is_waited_for_no_longer_than_allowed(
    own: Valkey, single: RedisClient
) -> None:
    await single.ping()
    own.pause()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"no reply within 0\.5 s"):
        await single.ping()
    assert time.monotonic() - started < 2.0
    own.resume()
    await until_answered(single)


async def test_address_that_swallows_everything_is_given_up_in_time() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        port = listening.getsockname()[1]
        client = client_of(f"redis://:secret@127.0.0.1:{port}/0", connect_timeout=0.2)
        with pytest.raises(StoreUnavailable, match="within") as caught:
            await client.ping()
        assert "secret" not in caught.value.detail
        await client.close()


async def test_another_program_on_the_port_is_reported() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        client = client_of(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(StoreUnavailable):
            await client.ping()
        await client.close()


async def test_calls_while_it_is_away_share_the_attempts_to_connect(own: Valkey) -> None:
    client = client_of(own.url)
    own.kill()
    results = await asyncio.gather(*(client.ping() for _ in range(100)), return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    assert len(client._failed) == 1
    await client.close()


async def test_read_only_replica_is_unavailable_until_it_is_a_primary(
    own: Valkey, single: RedisClient
) -> None:
    with closing(own.client()) as direct:
        direct.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match=r"READONLY|MASTERDOWN"):
            await single.run(COUNT, [single.key("a")], [1])
        direct.replicaof("NO", "ONE")
    await until_answered(single)
    assert await single.run(COUNT, [single.key("a")], [1]) == 1


async def test_full_server_is_unavailable_and_says_what_to_do(
    own: Valkey, single: RedisClient
) -> None:
    with closing(own.client()) as direct:
        direct.config_set("maxmemory", "1")
        direct.config_set("maxmemory-policy", "noeviction")
    with pytest.raises(StoreUnavailable, match="noeviction"):
        await single.run(COUNT, [single.key("a")], [1])


async def test_password_is_asked_for_and_given(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server:
        with closing(server.client()) as direct:
            direct.config_set("requirepass", "sesame open/now")
        stranger = client_of(server.url)
        with pytest.raises(StoreUnavailable, match="user name and password"):
            await stranger.ping()
        wrong = client_of(f"redis://:wrong@127.0.0.1:{server.port}")
        with pytest.raises(StoreUnavailable, match="correct"):
            await wrong.ping()
        right = client_of(f"redis://:sesame%20open%2Fnow@127.0.0.1:{server.port}/3")
        await right.command("SET", right.key("a"), 1)
        for each in (stranger, wrong, right):
            await each.close()


# --- Cluster --------------------------------------------------------------------------------------


async def test_cluster_spreads_keys_over_its_nodes(valkey_cluster: ValkeyCluster) -> None:
    client = client_of(valkey_cluster.url, cluster=True)
    for number in range(60):
        await client.command("SET", client.key("k", tag=str(number)), 1)
    assert len(await client.primaries()) == 3
    sizes = await client.everywhere("DBSIZE")
    assert sum(sizes) == 60
    assert all(sizes)
    await client.close()


async def test_slot_that_moved_is_followed(valkey_cluster: ValkeyCluster) -> None:
    client = client_of(valkey_cluster.url, cluster=True)
    await client.ping()
    assert client._slots is not None
    nodes = list(client._slots.primaries())
    key = client.key("a")
    right = client._slots.node(key)
    client._slots._nodes = [next(n for n in nodes if n != right)] * 16_384
    assert await client.run(COUNT, [key], [1]) == 1
    assert client._slots.node(key) == right
    await client.close()


async def test_node_that_is_away_leaves_the_others_at_work(tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path, append_only=True) as cluster:
        client = client_of(
            cluster.url,
            cluster=True,
            timeout=0.5,
            nodes=[f"127.0.0.1:{node.port}" for node in cluster.nodes],
        )
        for node in cluster.nodes:
            with closing(node.client()) as direct:
                direct.config_set("cluster-require-full-coverage", "no")
        keys = [client.key("k", tag=str(number)) for number in range(30)]
        await asyncio.gather(*(client.command("SET", key, 1) for key in keys))
        cluster.nodes[0].kill()
        results = await asyncio.gather(
            *(client.command("GET", key) for key in keys), return_exceptions=True
        )
        assert {type(result) for result in results} == {bytes, StoreUnavailable}
        cluster.nodes[0].start()
        cluster.wait_until_ok()
        for key in keys:
            await until_answered(client, key)
        answers = await asyncio.gather(*(client.command("GET", key) for key in keys))
        assert answers == [b"1"] * 30
        await client.close()


async def test_cluster_without_the_setting_says_which(valkey_cluster: ValkeyCluster) -> None:
    client = client_of(valkey_cluster.url)
    sets = (client.command("SET", client.key("k", tag=str(number)), 1) for number in range(30))
    with pytest.raises(StoreUnavailable, match=r"redis\.cluster"):
        await asyncio.gather(*sets)
    await client.close()
