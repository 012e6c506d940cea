"""A WebSocket passed through, both ends played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.core.error import UpstreamTimeout
from gateway.core.websocket import GOING_AWAY
from gateway.web.relay import MAX_WAITING_BYTES, Relay


class Client:
    """What the client gets, and whether it is read."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.is_held = False

    def send(self, data: bytes) -> None:
        self.got += data

    async def drained(self) -> None:
        await asyncio.sleep(0)

    def hold(self) -> None:
        self.is_held = True

    def let_go(self) -> None:
        self.is_held = False


class Tunnel:
    """The upstream's end; it takes bytes while its gate is open."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.says: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_closed = self.has_ended = False

    async def read(self) -> bytes:
        said = await self.says.get()
        if isinstance(said, Exception):
            raise said
        return said

    def write(self, data: bytes) -> None:
        self.got += data

    async def drain(self) -> None:
        await self.gate.wait()

    def write_eof(self) -> None:
        self.has_ended = True

    def close(self) -> None:
        self.is_closed = True


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the tasks under test have nothing to wait for
            await asyncio.sleep(0)


def frame(size: int) -> bytes:
    return bytes([0x82, size]) + b"x" * size


async def test_bytes_pass_both_ways_until_the_upstream_ends() -> None:
    client, tunnel = Client(), Tunnel()
    relay = Relay(client, tunnel)
    running = asyncio.create_task(relay.run())
    relay.feed(b"up")
    await tunnel.says.put(b"down")
    await until(lambda: client.got == b"down" and tunnel.got == b"up")
    relay.feed_eof()
    await until(lambda: tunnel.has_ended)
    await tunnel.says.put(b"")

    assert await running is True
    assert (tunnel.is_closed, relay.size) == (True, 4)


async def test_an_upstream_that_breaks_off_is_no_end_in_order() -> None:
    tunnel = Tunnel()
    await tunnel.says.put(UpstreamTimeout("silent"))
    assert await Relay(Client(), tunnel).run() is False
    assert tunnel.is_closed


async def test_a_client_is_held_back_by_a_slow_upstream() -> None:
    client, tunnel = Client(), Tunnel()
    relay = Relay(client, tunnel)
    running = asyncio.create_task(relay.run())
    tunnel.gate.clear()
    relay.feed(b"first")
    await until(lambda: tunnel.got == b"first")
    relay.feed(b"x" * (MAX_WAITING_BYTES + 1))
    assert client.is_held
    tunnel.gate.set()
    await until(lambda: not client.is_held and len(tunnel.got) == MAX_WAITING_BYTES + 6)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_goodbye_is_said_at_once_between_frames_and_nothing_follows_it() -> None:
    client, tunnel = Client(), Tunnel()
    relay = Relay(client, tunnel)
    running = asyncio.create_task(relay.run())
    await tunnel.says.put(frame(3))
    await until(lambda: client.got == frame(3))
    relay.leave()
    relay.leave()
    await tunnel.says.put(frame(4))
    await tunnel.says.put(b"")
    await running

    assert client.got == frame(3) + GOING_AWAY


async def test_goodbye_waits_for_the_frame_that_is_on_its_way() -> None:
    client, tunnel = Client(), Tunnel()
    relay = Relay(client, tunnel)
    running = asyncio.create_task(relay.run())
    whole = frame(100)
    await tunnel.says.put(whole[:10])
    await until(lambda: client.got == whole[:10])
    relay.leave()
    await tunnel.says.put(whole[10:50])
    await tunnel.says.put(whole[50:] + frame(5))
    await tunnel.says.put(b"")
    await running

    assert client.got == whole + GOING_AWAY
