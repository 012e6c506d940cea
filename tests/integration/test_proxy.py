"""Transparency over real sockets: what an upstream gets and what a client gets, byte by byte."""

from __future__ import annotations

import asyncio
import gzip
import io
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.support.echo import Answer, Echo
from tests.support.system import KEY, GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROBLEM = "application/problem+json"
WAIT_SECONDS = 10.0
MAX_BODY = 3 * 1024**2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream: Echo, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    settings: dict[str, Any] = {
        "upstream": {"response_timeout": "500ms", "connect_timeout": "2s"},
        "server": {"max_body": MAX_BODY},
        # Nothing but the test asks the upstream.
        "health": {"interval": "1h"},
        "policies": {"validation": {"routes": {"job-create": {"max_body": 2 * MAX_BODY}}}},
    }
    url = f"http://127.0.0.1:{upstream.port}"
    async with GatewayProcess(tmp_path_factory.mktemp("gw"), url, **settings) as process:
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        headers={"X-API-Key": KEY},
    ) as session:
        yield session


def answering(response: Callable[[], web.Response]) -> Answer:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return response()

    return answer


# --- requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_method_and_body_pass(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession, method: str
) -> None:
    body = None if method in ("GET", "OPTIONS") else b"\x00\xff body of " + method.encode()
    async with client.request(method, f"{gateway.public}/any/where", data=body) as response:
        answered = await response.read()

    assert (response.status, response.headers["X-Upstream"]) == (200, "echo")
    assert (echo.last.method, echo.last.target) == (method, "/any/where")
    assert echo.last.body == answered == (body or b"")


@pytest.mark.parametrize(
    "target",
    [
        "/a?x=1&x=2&y=",
        "/a?q=%C3%A9+%20%2F%3D&&flag",
        "/a?next=http://other/?x=1",
        "/caf%C3%A9/%7Euser/a+b",
        "/a//b/",
        "/a?semi;colon=1",
    ],
)
async def test_path_and_query_pass_byte_for_byte(
    gateway: GatewayProcess, echo: Echo, target: str
) -> None:
    raw = f"GET {target} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nConnection: close\r\n\r\n"
    answer = await gateway.speak(raw.encode())

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert echo.last.target == target


async def test_header_fields_pass_with_their_repetitions(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    headers = CIMultiDict(
        [("X-Many", "one"), ("X-Many", "two"), ("Accept", "a/b"), ("Cookie", "c=1"), ("X-E", "")]
    )
    async with client.get(f"{gateway.public}/a", headers=headers) as response:
        await response.read()

    got = echo.last.headers
    assert got.getall("X-Many") == ["one", "two"]
    assert (got["Accept"], got["Cookie"], got["X-E"]) == ("a/b", "c=1", "")
    assert "User-Agent" not in got  # the client sent none, and the gateway is not the client


async def test_hop_by_hop_fields_end_here(gateway: GatewayProcess, echo: Echo) -> None:
    raw = (
        f"GET /a HTTP/1.1\r\nHost: api.example\r\nX-API-Key: {KEY}\r\n"
        "Connection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n"
        "TE: trailers\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n"
        "X-Public: 1\r\n\r\n"
    )
    answer = await gateway.speak(raw.encode())

    assert answer.startswith(b"HTTP/1.1 200 ")
    got = {name.lower() for name in echo.last.headers}
    gone = {"x-private", "keep-alive", "te", "proxy-authorization", "proxy-connection", "x-api-key"}
    assert not got & gone
    assert "x-public" in got


async def test_who_asked_is_told_and_cannot_be_forged(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    forged = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=6.6.6.6",
        "X-Real-IP": "6.6.6.6",
        "Host": "api.example",
    }
    async with client.get(f"{gateway.public}/a", headers=forged) as response:
        await response.read()

    got = echo.last.headers
    assert got.getall("X-Forwarded-For") == ["127.0.0.1"]
    assert got.getall("X-Forwarded-Proto") == ["http"]
    assert got.getall("X-Forwarded-Host") == ["api.example"]
    assert got.getall("Forwarded") == ['for=127.0.0.1;host="api.example";proto=http']
    assert "X-Real-IP" not in got
    assert got["X-Request-ID"] == response.headers["X-Request-ID"]


async def test_chunked_body_passes_and_is_not_held_back(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    first_is_here, both = asyncio.Event(), asyncio.Event()
    got: list[bytes] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        async for chunk in request.content.iter_any():
            got.append(chunk)
            first_is_here.set()
        both.set()
        return web.Response()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        async with asyncio.timeout(WAIT_SECONDS):
            await first_is_here.wait()  # the second is not sent before the first has arrived
        yield b"second"

    echo.reads, echo.answer = False, answer
    async with client.post(f"{gateway.public}/a", data=body()) as response:
        assert response.status == 200

    assert b"".join(got) == b"firstsecond"
    assert both.is_set()
    assert "Content-Length" not in echo.last.headers


async def test_big_upload_and_download_pass_whole(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    big = bytes(range(256)) * (MAX_BODY // 256)
    async with client.put(f"{gateway.public}/a", data=io.BytesIO(big)) as response:
        assert await response.read() == big
    assert echo.last.body == big
    assert echo.last.headers["Content-Length"] == str(len(big))


@pytest.mark.parametrize("path", ["/any", "/api/v1/analysis"])
@pytest.mark.parametrize("framing", ["announced", "chunked"])
async def test_body_over_the_limit_is_refused(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession, path: str, framing: str
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 65536 + 1):
            yield b"x" * 65536

    data: Any = parts() if framing == "chunked" else io.BytesIO(b"x" * (MAX_BODY + 1))
    async with client.post(f"{gateway.public}{path}", data=data) as response:
        assert (response.status, response.headers["Content-Type"]) == (413, PROBLEM)
        assert str(MAX_BODY) in (await response.json(content_type=PROBLEM))["detail"]
    assert [request for request in echo.arrived if len(request.body) > MAX_BODY] == []


# --- responses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", [200, 201, 202, 204, 206, 301, 302, 304, 400, 404, 409, 418, 422, 500, 503]
)
async def test_status_reason_and_body_pass(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession, status: int
) -> None:
    body = None if status in (204, 304) else b"body"
    echo.answer = answering(
        lambda: web.Response(
            status=status, reason="As It Is", body=body, headers={"Location": "/x", "ETag": '"1"'}
        )
    )
    async with client.get(f"{gateway.public}/a/{status}", allow_redirects=False) as response:
        assert (response.status, response.reason) == (status, "As It Is")
        assert await response.read() == (body or b"")
    assert (response.headers["Location"], response.headers["ETag"]) == ("/x", '"1"')


async def test_response_fields_pass_and_hop_by_hop_ones_do_not(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    headers = CIMultiDict(
        [
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Keep-Alive", "timeout=1"),
            ("Connection", "X-Secret"),
            ("X-Secret", "1"),
            ("Server", "uvicorn"),
            ("Cache-Control", "max-age=5"),
        ]
    )
    echo.answer = answering(lambda: web.Response(body=b"x", headers=headers))
    async with client.get(f"{gateway.public}/a") as response:
        await response.read()

    got = response.headers
    assert got.getall("Set-Cookie") == ["a=1", "b=2"]
    assert got["Cache-Control"] == "max-age=5"
    assert not {"Keep-Alive", "X-Secret", "Server"} & set(got)


async def test_head_announces_a_length_without_a_body(gateway: GatewayProcess, echo: Echo) -> None:
    echo.answer = answering(lambda: web.Response(body=b"x" * 1234))
    raw = f"HEAD /a HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nConnection: close\r\n\r\n"
    head, _, rest = (await gateway.speak(raw.encode())).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length: 1234" in head.lower()
    assert rest == b""
    assert echo.last.method == "HEAD"


async def test_compressed_body_passes_untouched(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    packed = gzip.compress(b"text " * 1000)
    echo.answer = answering(lambda: web.Response(body=packed, headers={"Content-Encoding": "gzip"}))
    async with client.get(f"{gateway.public}/a", headers={"Accept-Encoding": "gzip"}) as response:
        assert await response.read() == packed

    assert response.headers["Content-Encoding"] == "gzip"
    assert response.headers["Content-Length"] == str(len(packed))
    assert echo.last.headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize("path", ["/events", "/api/v1/analysis/j1/stream"])
async def test_stream_is_passed_on_piece_by_piece(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession, path: str
) -> None:
    first_was_read = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        await response.write(b"event: one\n\n")
        async with asyncio.timeout(WAIT_SECONDS):
            await first_was_read.wait()  # the client must have it before there is more
        await response.write(b"event: two\n\n")
        return response

    echo.answer = answer
    async with client.get(gateway.public + path) as response:
        async with asyncio.timeout(WAIT_SECONDS):
            first = await response.content.readexactly(12)
        first_was_read.set()
        rest = await response.content.read()

    assert (first, rest) == (b"event: one\n\n", b"event: two\n\n")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["/events", "/api/v1/analysis/j1/stream"])
async def test_client_that_leaves_a_stream_ends_it_at_the_upstream(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession, path: str
) -> None:
    closed = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b": tick\n\n")
                await asyncio.sleep(0.02)
        except ConnectionError:
            closed.set()
            raise
        except asyncio.CancelledError:
            closed.set()
            raise

    echo.answer = answer
    async with client.get(gateway.public + path) as response:
        await response.content.readexactly(8)
        response.close()
    async with asyncio.timeout(WAIT_SECONDS):
        await closed.wait()


# --- an upstream that fails --------------------------------------------------------------------


async def test_silent_upstream_is_a_504(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    released = asyncio.Event()

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    echo.answer = answer
    async with asyncio.timeout(WAIT_SECONDS), client.get(f"{gateway.public}/a") as response:
        document = await response.json(content_type=PROBLEM)
    released.set()

    assert (response.status, document["title"]) == (504, "Upstream timed out")
    assert document["request_id"] == response.headers["X-Request-ID"]


async def test_answer_that_breaks_off_is_never_passed_off_as_whole(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(b"x" * 200_000)
        assert request.transport is not None
        request.transport.abort()
        return response

    echo.answer = answer
    with pytest.raises(aiohttp.ClientPayloadError):
        async with client.get(f"{gateway.public}/a") as response:
            await response.read()
    async with client.get(f"{gateway.public}/api/v1/analysis/j1") as small:
        assert small.status == 502


async def test_answer_that_is_not_http_is_a_502(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(garbage, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        folder = tmp_path_factory.mktemp("garbage")
        async with GatewayProcess(folder, f"http://127.0.0.1:{port}") as gateway:
            answer = await gateway.request("GET", "/a")
            created = await gateway.request("POST", "/api/v1/analysis", {"url": "x"})

    assert (answer.status, created.status) == (502, 502)
    assert answer.headers["Content-Type"] == PROBLEM


async def test_refused_connection_is_a_502(tmp_path_factory: pytest.TempPathFactory) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = URL.build(scheme="http", host="127.0.0.1", port=taken.getsockname()[1])
        async with GatewayProcess(tmp_path_factory.mktemp("refused"), str(url)) as gateway:
            async with asyncio.timeout(WAIT_SECONDS):
                answer = await gateway.request("GET", "/a")

    assert (answer.status, answer.headers["Content-Type"]) == (502, PROBLEM)
    assert answer.document["title"] == "Upstream unreachable"
