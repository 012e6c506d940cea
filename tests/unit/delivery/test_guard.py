"""Sockets are made for allowed addresses only, whatever name or literal they come from."""

from __future__ import annotations

import errno
import socket
from typing import Any

import aiohttp
import pytest

from gateway.core.address import AddressRule
from gateway.delivery.guard import (
    BlockedAddress,
    address_rule,
    guarded_connector,
    judging,
    make_socket,
)
from gateway.settings.delivery import WebhookAddresses
from tests.support.names import Names
from tests.support.receiver import Receiver

STRICT = AddressRule()
LOOPBACK = AddressRule.parse(("http", "https"), (), any_port=True, allow=("127.0.0.1/32",))


def info(address: str, *, scope: int = 0) -> Any:
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 443, 0, scope)
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111"])
def test_socket_for_a_public_address_is_made(address: str) -> None:
    with judging() as judgement, make_socket(STRICT, info(address)) as made:
        assert made.type == socket.SOCK_STREAM
    assert judgement.allowed == {address}
    assert not judgement.is_blocked


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:7f00:1", "fe80::1%lo"])
def test_socket_for_a_denied_address_is_not_made(address: str) -> None:
    with judging() as judgement, pytest.raises(BlockedAddress) as refusal:
        make_socket(STRICT, info(address))
    assert refusal.value.errno == errno.EACCES
    assert refusal.value.address == address.partition("%")[0]
    assert judgement.is_blocked
    assert judgement.detail == f"{refusal.value.address} {refusal.value.reason}"


def test_judging_is_optional_and_ends_with_its_block() -> None:
    with judging() as judgement:
        pass
    with pytest.raises(BlockedAddress):
        make_socket(STRICT, info("127.0.0.1"))
    make_socket(STRICT, info("1.1.1.1")).close()
    assert not judgement.blocked
    assert not judgement.allowed


def test_settings_become_the_rule() -> None:
    addresses = WebhookAddresses(schemes=("http",), ports=(8080,), allow=("10.0.0.0/8",))
    rule = address_rule(addresses)
    assert rule == AddressRule.parse(("http",), (8080,), allow=("10.0.0.0/8",))
    assert address_rule(WebhookAddresses()) == AddressRule()
    assert address_rule(WebhookAddresses(any_port=True)).ports is None


async def post(rule: AddressRule, url: str, names: Names | None = None) -> int:
    connector = guarded_connector(rule, resolver=names)
    async with aiohttp.ClientSession(connector=connector) as session, session.post(url) as response:
        return response.status


async def test_name_that_resolves_to_an_allowed_address_is_reached() -> None:
    async with Receiver() as receiver:
        url = f"http://receiver.example:{receiver.port}/"
        assert await post(LOOPBACK, url, Names(["127.0.0.1"])) == 204


async def test_name_that_resolves_to_a_denied_address_is_not() -> None:
    async with Receiver() as receiver:
        url = f"http://receiver.example:{receiver.port}/"
        with judging() as judgement, pytest.raises(aiohttp.ClientConnectorError):
            await post(STRICT, url, Names(["127.0.0.1"]))
        assert judgement.is_blocked
        assert receiver.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:7f00:1]", "localhost"])
async def test_literals_that_resolvers_never_see_are_judged_too(host: str) -> None:
    async with Receiver() as receiver:
        with judging() as judgement, pytest.raises(aiohttp.ClientConnectorError):
            await post(STRICT, f"http://{host}:{receiver.port}/")
        assert judgement.is_blocked
        assert receiver.requests == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "127.1", "0"])
async def test_numbers_that_resolvers_take_for_addresses_reach_nobody(host: str) -> None:
    async with Receiver() as receiver:
        with pytest.raises(aiohttp.ClientError):  # by aiohttp itself, or by us at the socket
            await post(STRICT, f"http://{host}:{receiver.port}/")
        assert receiver.requests == []


async def test_rebinding_between_two_connections_is_blocked() -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with Receiver() as receiver:
        url = f"http://rebind.example:{receiver.port}/"
        connector = guarded_connector(LOOPBACK, resolver=names)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.post(url, headers={"Connection": "close"}) as response:
                assert response.status == 204
            connector.clear_dns_cache()
            with judging() as judgement, pytest.raises(aiohttp.ClientConnectorError):
                await session.post(url)
        assert names.asked == 2
        assert judgement.blocked == {"127.0.0.2": "is in 127.0.0.0/8 (loopback)"}
        assert len(receiver.requests) == 1


@pytest.mark.parametrize("addresses", [["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "10.0.0.1"]])
async def test_allowed_address_beside_a_denied_one_is_used(addresses: list[str]) -> None:
    async with Receiver() as receiver:
        url = f"http://both.example:{receiver.port}/"
        assert await post(LOOPBACK, url, Names(addresses)) == 204


@pytest.mark.parametrize("addresses", [["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "10.0.0.1"]])
async def test_allowed_address_that_refuses_is_no_blocked_one(addresses: list[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        url = f"http://both.example:{closed.getsockname()[1]}/"
        with judging() as judgement, pytest.raises(aiohttp.ClientConnectorError):
            await post(LOOPBACK, url, Names(addresses))
    assert judgement.allowed == {"127.0.0.1"}
    assert not judgement.is_blocked


async def test_several_denied_addresses_are_all_named() -> None:
    names = Names(["10.0.0.1", "192.168.0.1", "::1"])
    with judging() as judgement, pytest.raises(aiohttp.ClientConnectorError):
        await post(LOOPBACK, "http://many.example:9/", names)
    assert judgement.is_blocked
    assert judgement.detail == (
        "10.0.0.1 is in 10.0.0.0/8 (private); ::1 is outside 2000::/3, the public IPv6 addresses;"
        " 192.168.0.1 is in 192.168.0.0/16 (private)"
    )
