"""Attacks that would use up memory, connections or patience, against the running process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import psutil
import pytest
import pytest_asyncio
from aiohttp import web

from tests.integration.test_attack_framing import keyed, logged, port, post, refused
from tests.support.echo import Echo
from tests.support.lane import connected
from tests.support.system import GatewayProcess, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024**2
MAX_BODY = 64 * MIB
STREAMS = 300
CHUNKED = "Transfer-Encoding: chunked"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream: Echo, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    settings: dict[str, Any] = {
        "server": {
            "max_body": MAX_BODY,
            "max_header": "8KiB",
            "max_connections": STREAMS + 20,
            "header_timeout": "300ms",
            "body_timeout": "300ms",
            "write_timeout": "300ms",
        },
        "upstream": {"max_connections": STREAMS + 20},
        "health": {"interval": "1h"},
    }
    url = f"http://127.0.0.1:{upstream.port}"
    async with GatewayProcess(tmp_path_factory.mktemp("gw"), url, **settings) as process:
        yield process


def memory(gateway: GatewayProcess) -> int:
    return int(psutil.Process(gateway.pid).memory_info().rss)


async def test_a_slow_head_is_timed_out(gateway: GatewayProcess, echo: Echo) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(b"GET /a HTTP/1.1\r\nHost: a")
        reply = await refused(wire, 408)
    assert echo.forwarded == []
    await logged(gateway, reply)


async def test_a_head_that_trickles_is_timed_out_all_the_same(
    gateway: GatewayProcess, echo: Echo
) -> None:
    async with connected(port(gateway)) as wire:

        async def trickle() -> None:
            await wire.send(b"GET /a HTTP/1.1\r\n")
            while True:
                await wire.send(b"X-A: 1\r\n")
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        reply = await wire.reply()
        trickling.cancel()
    assert reply.status == 408
    assert echo.forwarded == []


@pytest.mark.parametrize("framing", ["Content-Length: 10", CHUNKED])
async def test_a_slow_body_is_timed_out(gateway: GatewayProcess, echo: Echo, framing: str) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(post(framing, body=b"5\r\nab"))
        reply = await wire.reply()
        assert (reply.status, reply.get("Connection")) == (408, "close")
        assert await wire.ended()
    assert echo.forwarded == []


async def test_an_endless_head_is_too_large(gateway: GatewayProcess, echo: Echo) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/a", *(f"X-{n}: {'a' * 100}" for n in range(100))))
        await refused(wire, 431)
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/" + "a" * 9000))
        await refused(wire, 414)
    assert echo.forwarded == []


async def test_a_body_over_the_limit_is_refused_before_it_comes(
    gateway: GatewayProcess, echo: Echo
) -> None:
    async with connected(port(gateway)) as wire:
        await wire.send(post(f"Content-Length: {MAX_BODY + 1}"))
        await refused(wire, 413)
    assert echo.forwarded == []


async def test_a_flood_of_pipelined_requests_is_bounded(
    gateway: GatewayProcess, echo: Echo
) -> None:
    release = asyncio.Event()

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        await release.wait()
        return web.Response(body=b"x")

    echo.answer = answer
    before = memory(gateway)
    flood = keyed() * 1000  # 100 KiB each time
    async with connected(port(gateway)) as wire:
        sent = 0
        try:
            async with asyncio.timeout(1):  # the gateway stops reading: the client must wait
                while sent < 64 * MIB:
                    await wire.send(flood)
                    sent += len(flood)
        except TimeoutError:
            pass
        assert sent < 32 * MIB
        assert memory(gateway) - before < 8 * MIB
        assert len(echo.forwarded) == 1  # one at a time
        release.set()
        assert (await wire.reply()).status == 200
        assert (await wire.reply()).status == 200  # and the others still come
    release.set()


async def test_more_connections_than_allowed_are_closed(gateway: GatewayProcess) -> None:
    async with AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(connected(port(gateway))) for _ in range(STREAMS + 20)
        ]
        async with connected(port(gateway)) as one_more:
            assert await one_more.ended()
        await wires[0].send(keyed())
        assert (await wires[0].reply()).status == 200  # those who came first are served

    async def gone() -> bool:
        return (await gateway.metrics())["gateway_active_connections"] == 0

    await eventually("all have left", gone)


async def test_idle_streams_take_little_memory(gateway: GatewayProcess, echo: Echo) -> None:
    closing = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await closing.wait()
        return response

    echo.answer = answer
    try:
        async with AsyncExitStack() as stack:
            wires = [
                await stack.enter_async_context(connected(port(gateway))) for _ in range(STREAMS)
            ]
            for wire in wires[:50]:
                await wire.send(keyed("/events"))
                await wire.reader.readuntil(b"data: 1\n\n")
            before = memory(gateway)
            for wire in wires[50:]:
                await wire.send(keyed("/events"))
                await wire.reader.readuntil(b"data: 1\n\n")
            each = (memory(gateway) - before) / (STREAMS - 50)
            closing.set()
    finally:
        closing.set()
    assert each < 64 * 1024


async def test_a_slow_consumer_is_dropped(gateway: GatewayProcess, echo: Echo) -> None:
    left = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"data: " + b"x" * 65536 + b"\n\n")
        finally:
            left.set()

    echo.answer = answer
    before = memory(gateway)
    async with connected(port(gateway)) as wire:
        await wire.send(keyed("/events"))
        async with asyncio.timeout(20):
            await left.wait()  # the gateway let go of both sides
    assert memory(gateway) - before < 16 * MIB


async def test_big_bodies_pass_in_constant_memory(gateway: GatewayProcess, echo: Echo) -> None:
    received = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal received
        async for piece in request.content.iter_any():
            received += len(piece)
        response = web.StreamResponse(headers={"Content-Length": str(MAX_BODY)})
        await response.prepare(request)
        for _ in range(MAX_BODY // MIB):
            await response.write(b"y" * MIB)
        return response

    echo.reads, echo.answer = False, answer
    before = peak = memory(gateway)
    async with connected(port(gateway)) as wire:
        # Without a type it might be JSON, which validation reads whole.
        fields = f"Content-Length: {MAX_BODY}\r\nContent-Type: application/octet-stream"
        await wire.send(post(fields))
        for _ in range(MAX_BODY // MIB):
            await wire.send(b"x" * MIB)
            peak = max(peak, memory(gateway))
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        left = MAX_BODY
        while left:
            left -= len(await wire.reader.read(MIB))
            peak = max(peak, memory(gateway))
    assert received == MAX_BODY
    assert peak - before < 16 * MIB
