"""WebSockets through the gateway: policies first, then bytes both ways, untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Self

import aiohttp
import orjson
import psutil
import pytest
import pytest_asyncio
from aiohttp import WSMsgType, web

from tests.support.lane import connected, get
from tests.support.system import KEY, GatewayProcess, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024**2
Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


async def echo(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)


class Upstream:
    """Speaks WebSocket as the test says."""

    def __init__(self) -> None:
        self.talk: Talk = echo
        self.asked: list[web.BaseRequest] = []
        self.closed: list[int | None] = []
        self.port = 0
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Upgrade") is None:
            return web.Response(text="plain")
        self.asked.append(request)
        if request.path == "/refuses":
            return web.Response(status=426, text="not here")
        socket = web.WebSocketResponse(autoping=False, max_msg_size=0, protocols=("chat",))
        await socket.prepare(request)
        await self.talk(socket)
        await socket.close()
        self.closed.append(socket.close_code)
        return socket


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream_process() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def upstream(upstream_process: Upstream) -> AsyncIterator[Upstream]:
    upstream_process.talk = echo
    upstream_process.asked.clear()
    upstream_process.closed.clear()
    yield upstream_process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    settings: dict[str, Any] = {
        "policies": {"cors": {"origins": ["https://app.example"]}},
        "upstream": {"idle_timeout": "700ms"},
        "health": {"interval": "1h"},
    }
    url = f"http://127.0.0.1:{upstream_process.port}"
    async with GatewayProcess(tmp_path_factory.mktemp("gw"), url, **settings) as process:
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"X-API-Key": KEY}) as session:
        yield session


def port(gateway: GatewayProcess) -> int:
    return int(gateway.public.rpartition(":")[2])


async def test_messages_pass_both_ways(
    gateway: GatewayProcess, upstream: Upstream, client: aiohttp.ClientSession
) -> None:
    url = f"{gateway.public}/talk?x=1"
    async with client.ws_connect(url, protocols=("chat",), compress=15) as socket:
        await socket.send_str("caf\u00e9")
        assert await socket.receive_str() == "caf\u00e9"
        await socket.send_bytes(b"\x00\xff")
        assert await socket.receive_bytes() == b"\x00\xff"
        assert socket.protocol == "chat"

    [asked] = upstream.asked
    assert asked.raw_path == "/talk?x=1"
    assert "X-API-Key" not in asked.headers
    assert asked.headers["X-Forwarded-For"] == "127.0.0.1"
    await eventually("the close has passed", lambda: _is(upstream.closed, [1000]))
    line = await access_line(gateway, asked.headers["X-Request-ID"])
    assert (line["status"], line["path"]) == (101, "/talk")
    assert line["bytes"] > 0
    assert "aborted" not in line


async def _has(values: Sequence[int | None], value: int) -> bool:
    return value in values


async def _is(found: object, expected: object) -> bool:
    return found == expected


async def access_line(gateway: GatewayProcess, request_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        lines = [orjson.loads(each) for each in gateway.log.splitlines() if each.startswith("{")]
        found[:] = [
            each
            for each in lines
            if each["event"] == "request" and each["request_id"] == request_id
        ]
        return bool(found)

    await eventually("the access line is written", is_there)
    return found[0]


async def test_pings_and_close_codes_pass(
    gateway: GatewayProcess, upstream: Upstream, client: aiohttp.ClientSession
) -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        assert (await socket.receive()).type is WSMsgType.PING
        await socket.pong(b"answer")
        await socket.ping(b"and you?")
        assert (await socket.receive()).data == b"and you?"
        await socket.close(code=4321, message=b"enough")

    upstream.talk = talk
    async with client.ws_connect(f"{gateway.public}/talk", autoping=False) as socket:
        await socket.ping(b"hello")
        pong = await socket.receive()
        assert (pong.type, pong.data) == (WSMsgType.PONG, b"answer")
        ping = await socket.receive()
        await socket.pong(ping.data)
        closing = await socket.receive()
    assert (closing.type, closing.data, closing.extra) == (WSMsgType.CLOSE, 4321, "enough")


async def test_the_clients_close_reaches_the_upstream(
    gateway: GatewayProcess, upstream: Upstream, client: aiohttp.ClientSession
) -> None:
    async with client.ws_connect(f"{gateway.public}/talk") as socket:
        await socket.close(code=4001)
    # A connection of the test before may end late, and be told of here.
    await eventually("it has", lambda: _has(upstream.closed, 4001))


async def test_a_client_that_is_cut_off_ends_the_upstreams_side(
    gateway: GatewayProcess, upstream: Upstream, client: aiohttp.ClientSession
) -> None:
    async with client.ws_connect(f"{gateway.public}/talk") as socket:
        await socket.send_str("x")
        await socket.receive_str()
        assert socket._response.connection is not None
        transport = socket._response.connection.transport
        assert transport is not None
        transport.abort()
        await eventually("it has ended", lambda: _has(upstream.closed, 1006))


async def test_silence_ends_it(
    gateway: GatewayProcess, upstream: Upstream, client: aiohttp.ClientSession
) -> None:
    async with client.ws_connect(f"{gateway.public}/talk") as socket:
        async with asyncio.timeout(10):
            assert (await socket.receive()).type in (WSMsgType.CLOSED, WSMsgType.CLOSING)


async def test_big_messages_pass_in_constant_memory(
    gateway: GatewayProcess, upstream: Upstream, client: aiohttp.ClientSession
) -> None:
    size, sent = 32 * MIB, 0

    async def talk(socket: web.WebSocketResponse) -> None:
        nonlocal sent
        sent = len(await socket.receive_bytes())
        await socket.send_bytes(b"y" * size)

    upstream.talk = talk
    process = psutil.Process(gateway.pid)
    before = process.memory_info().rss
    async with client.ws_connect(f"{gateway.public}/talk", max_msg_size=0) as socket:
        await socket.send_bytes(b"x" * size)
        await asyncio.sleep(0)
        got = await socket.receive_bytes()
    assert (sent, len(got)) == (size, size)
    assert process.memory_info().rss - before < 8 * MIB


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("https://app.example", 101),
        ("http://api.example", 101),
        ("https://evil.example", 403),
        ("null", 403),
        ("https://app.example.evil.com", 403),
        ("https://api.example:8443", 403),
    ],
)
async def test_a_foreign_page_opens_none(
    gateway: GatewayProcess, upstream: Upstream, origin: str | None, status: int
) -> None:
    lines = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"X-API-Key: {KEY}"]
    lines += [] if origin is None else [f"Origin: {origin}"]
    async with connected(port(gateway)) as wire:
        await wire.send(get("/talk", *lines))
        reply = await wire.reply()
    assert reply.status == status
    assert len(upstream.asked) == (1 if status == 101 else 0)
    if status == 101:
        assert reply.get("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert (reply.get("Connection"), reply.get("Upgrade")) == ("Upgrade", "websocket")


async def test_without_a_key_none_is_opened(gateway: GatewayProcess, upstream: Upstream) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{gateway.public}/talk")
    assert refused.value.status == 401
    assert upstream.asked == []


async def test_an_upstream_that_declines_is_heard(
    gateway: GatewayProcess, upstream: Upstream, client: aiohttp.ClientSession
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await client.ws_connect(f"{gateway.public}/refuses")
    assert refused.value.status == 426


async def test_another_protocol_is_not_passed_on(
    gateway: GatewayProcess, upstream: Upstream
) -> None:
    lines = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQA"]
    async with connected(port(gateway)) as wire:
        for _ in range(2):  # and the connection still speaks HTTP
            await wire.send(get("/plain", *lines, f"X-API-Key: {KEY}"))
            assert (await wire.reply()).body == b"plain"
    assert upstream.asked == []


async def test_a_drain_closes_with_1001_between_frames(
    upstream: Upstream, client: aiohttp.ClientSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        sending = asyncio.create_task(_send_forever(socket))
        async for _ in socket:
            pass
        sending.cancel()

    upstream.talk = talk
    url = f"http://127.0.0.1:{upstream.port}"
    settings = {"server": {"drain_timeout": "10s"}, "health": {"interval": "1h"}}
    async with GatewayProcess(tmp_path_factory.mktemp("drain"), url, **settings) as gateway:
        async with client.ws_connect(f"{gateway.public}/talk") as socket:
            assert len(await socket.receive_bytes()) == 70_000
            stopping = asyncio.create_task(gateway.terminate())
            while (message := await socket.receive()).type is WSMsgType.BINARY:
                assert len(message.data) == 70_000  # none is cut short
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
        assert await stopping == 0
    # In the client's own words: its answer to our Close.
    await eventually("the upstream is told", lambda: _is(upstream.closed, [1000]), 5)


async def _send_forever(socket: web.WebSocketResponse) -> None:
    while True:
        await socket.send_bytes(b"z" * 70_000)
        await asyncio.sleep(0.001)
