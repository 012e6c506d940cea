"""The server that the Redis tests stand on is real: it answers, is empty, and outlives a crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.support.valkey import Valkey, ValkeyStartError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path, append_only=True) as running:
        yield running


def test_answers_ping_on_loopback(valkey: Valkey) -> None:
    with closing(redis.Redis.from_url(valkey.url)) as client:
        assert client.ping() is True


def test_runs_lua_scripts(valkey: Valkey) -> None:
    with closing(valkey.client()) as client:
        assert client.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, "n", "3") == 3


@pytest.mark.parametrize("name", ["first", "second"])
def test_each_test_finds_an_empty_server(valkey: Valkey, name: str) -> None:
    with closing(valkey.client()) as client:
        assert client.keys("*") == []
        client.set(name, "left behind")


def test_append_only_data_survives_a_kill(server: Valkey) -> None:
    with closing(server.client()) as client:
        for number in range(100):
            client.rpush("numbers", number)
    server.kill()
    server.start()
    with closing(server.client()) as client:
        assert client.lrange("numbers", 0, -1) == [str(n).encode() for n in range(100)]


def test_restart_keeps_the_port(server: Valkey) -> None:
    before = server.url
    server.restart()
    assert server.url == before


def test_killed_server_refuses_connections(server: Valkey) -> None:
    server.kill()
    with closing(server.client()) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_port_in_use_is_reported_with_the_servers_own_words(server: Valkey, tmp_path: Path) -> None:
    second = Valkey(tmp_path / "second")
    second.port = server.port
    with pytest.raises(ValkeyStartError, match="Address already in use"):
        second.start()
