"""The section `redis`: what is refused, in which words, and that a password is never in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.core.error import SettingsError
from gateway.settings.check import check
from gateway.settings.model import Settings
from gateway.settings.store import Redis
from gateway.store.redis.endpoint import endpoint_of


def section(**fields: Any) -> Redis:
    return Redis.model_validate({"url": "redis://127.0.0.1:6379", **fields})


def problems(**fields: Any) -> list[str]:
    settings = Settings(redis=section(**fields))
    return [f"{'.'.join(map(str, where))}: {what}" for where, what in check(settings)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"url": "rediss://user:p%40ss@redis.example:6380/2", "ca_file": "ca.pem"},
        {"url": "redis://:word@[::1]:7000", "cluster": True, "nodes": ("[::1]:7001", "b:7002")},
    ],
)
def test_good_sections_pass(fields: dict[str, Any]) -> None:
    assert problems(**fields) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"url": "http://x"}, "redis.url: must be a URL like redis://"),
        ({"url": "redis://"}, "redis.url: must be a URL like redis://"),
        ({"url": "redis://x:99999"}, "redis.url: must be a URL like redis://"),
        ({"url": "redis://x/zero"}, "redis.url: must be a URL like redis://"),
        ({"url": "redis://x?db=1"}, "redis.url: must be a URL like redis://"),
        ({"url": "redis://bob@x"}, "redis.url: must give the user's password too"),
        ({"url": "redis://x/1", "cluster": True}, "redis.url: must name database 0"),
        ({"ca_file": "ca.pem"}, "redis.ca_file: is for TLS"),
        ({"nodes": ("a:1",)}, "redis.nodes: are asked for a cluster's slots alone"),
        ({"nodes": ("a",), "cluster": True}, "redis.nodes.0: must be host:port"),
        ({"namespace": "a{b}"}, "redis.namespace: must be 1 to 40 of"),
    ],
)
def test_bad_ones_are_told_where_and_how(fields: dict[str, Any], expected: str) -> None:
    (found,) = problems(**fields)
    assert found.startswith(expected)


def test_password_is_in_no_text() -> None:
    settings = section(url="redis://bob:open-sesame@x/zero")
    assert "open-sesame" not in f"{settings!r}{settings.model_dump()}{problems(url=settings.url)}"


def test_greeting_holds_what_the_url_says() -> None:
    found = endpoint_of(section(url="redis://bob:p%40ss@x/2"))
    assert found.addresses == (("x", 6379),)
    assert list(found.greeting) == [("AUTH", "bob", "p@ss"), ("SELECT", "2")]
    assert found.tls is None


def test_tls_checks_the_servers_certificate(tmp_path: Path) -> None:
    found = endpoint_of(section(url="rediss://x:6380"))
    assert found.tls is not None
    assert found.tls.check_hostname
    with pytest.raises(SettingsError, match=r"redis\.ca_file: .*none\.pem cannot be used"):
        endpoint_of(section(url="rediss://x", ca_file=str(tmp_path / "none.pem")))


@pytest.mark.parametrize(
    ("upstream", "redis", "expected"),
    [
        ({"shared": True}, {"url": "redis://x"}, []),
        ({"instance": "pod-1"}, {"url": "redis://x"}, []),
        ({}, {"url": "redis://x"}, ["upstream.instance"]),
        ({"shared": True}, None, ["store.kind"]),
    ],
)
def test_store_in_redis_needs_the_server_and_to_know_whose_jobs_are_whose(
    upstream: dict[str, Any], redis: dict[str, Any] | None, expected: list[str]
) -> None:
    settings = Settings.model_validate(
        {"store": {"kind": "redis"}, "upstream": upstream, "redis": redis}
    )
    assert [".".join(map(str, where)) for where, _ in check(settings)] == expected


def test_timeout_fits_within_the_longest() -> None:
    settings = Settings.model_validate({"webhooks": {"timeout": "15s", "max_timeout": "5s"}})
    assert [where for where, _ in check(settings)] == [("webhooks", "timeout")]
