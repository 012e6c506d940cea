"""What an upstream says before its answer (1xx) reaches the client that waits, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.system import KEY, GatewayProcess

HINTS = (
    b"HTTP/1.1 102 Processing\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nServer: x\r\n"
    b"Connection: X-Private\r\nX-Private: 1\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok"
PASSED_ON = (
    b"HTTP/1.1 102 Processing\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                await reader.readuntil(b"0\r\n\r\n")
            elif b"Content-Length: 1\r\n" in head:
                await reader.readexactly(1)
            writer.write(HINTS + OK)
    except asyncio.IncompleteReadError:
        writer.close()


@pytest.fixture
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with GatewayProcess(tmp_path_factory.mktemp("gw"), url) as process:
        yield process
    server.close()


def request(line: str, body: str = "") -> bytes:
    length = "Content-Length: 1\r\n" if body else ""
    head = f"{line}\r\nHost: x\r\nX-API-Key: {KEY}\r\n{length}Connection: close\r\n\r\n"
    return (head + body).encode()


async def test_interim_answers_go_before_the_answer_on_both_lanes(gateway: GatewayProcess) -> None:
    for asked in (request("GET /pages/1 HTTP/1.1"), request("POST /pages/1 HTTP/1.1", "x")):
        answer = await gateway.speak(asked)
        assert answer.startswith(PASSED_ON + b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nok")


async def test_an_answer_from_the_cache_has_none(gateway: GatewayProcess) -> None:
    asked = request("GET /pages/2 HTTP/1.1")
    await gateway.speak(asked)

    answer = await gateway.speak(asked)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Cache-Status: gateway; hit" in answer
    assert b"Link" not in answer


async def test_a_client_of_http_1_0_is_sent_none(gateway: GatewayProcess) -> None:
    answer = await gateway.speak(request("GET /pages/3 HTTP/1.0"))

    assert answer.split(b"\r\n", 1)[0].endswith(b" 200 OK")
    assert b"Early Hints" not in answer
