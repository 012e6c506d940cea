"""What requests may hold, against the running gateway: nothing bad reaches the upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.coding import CODERS
from tests.support.echo import Echo
from tests.support.system import KEY, GatewayProcess, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = (Path(__file__).parents[1] / "data" / "upstream" / "openapi.json").read_bytes()
CREATE = "/api/v1/analysis"
JSON = {"Content-Type": "application/json"}
MIB = 1024**2


async def publishing(request: web.BaseRequest) -> web.StreamResponse:
    """An upstream that says what its requests look like."""
    if request.path == "/openapi.json":
        return web.Response(body=DOCUMENT, content_type="application/json")
    return web.json_response({"status": "ok"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Echo]:
    async with Echo() as server:
        server.answer = publishing
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream: Echo, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    settings: dict[str, Any] = {
        "policies": {"validation": {"openapi": {"source": "upstream"}}},
    }
    url = f"http://127.0.0.1:{upstream.port}"
    async with GatewayProcess(tmp_path_factory.mktemp("gw"), url, **settings) as process:

        async def is_known() -> bool:
            component = (await process.health())["components"]["openapi"]
            return bool(component["status"] == "healthy" and component["operations"] > 30)

        await eventually("the upstream's description is there", is_known)
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def echo(upstream: Echo) -> Echo:
    upstream.arrived.clear()
    return upstream


def reached(echo: Echo) -> list[str]:
    """What came of clients: the gateway has questions of its own."""
    return [each.target for each in echo.arrived if each.method == "POST"]


async def test_a_creation_that_the_upstream_would_refuse_is_refused_at_its_fields(
    gateway: GatewayProcess, echo: Echo
) -> None:
    answer = await gateway.request("POST", CREATE, {"callback_url": 5})

    assert (answer.status, reached(echo)) == (422, [])
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {error["pointer"] for error in answer.document["errors"]} == {"#/url", "#/callback_url"}


async def test_a_good_creation_passes(gateway: GatewayProcess, echo: Echo) -> None:
    answer = await gateway.request("POST", CREATE, {"url": "https://www.twitch.tv/videos/1"})

    assert (answer.status, reached(echo)) == (200, [CREATE])


async def test_a_parameter_of_the_wrong_kind_is_named(gateway: GatewayProcess) -> None:
    answer = await gateway.request("GET", "/api/v1/monitoring/alerts?limit=many")

    [error] = answer.document["errors"]
    assert (answer.status, error["parameter"], error["in"]) == (422, "limit", "query")


@pytest.mark.parametrize(
    "body",
    [
        b'{"url": "a", "url": "b"}',
        b'{"url": NaN}',
        b'{"url": ' + b"[" * 50_000,
        b'{"url": "\xff"}',
        b'{"url": "\\ud800"}',
        b"{",
    ],
)
async def test_json_that_parsers_read_differently_ends_here(
    gateway: GatewayProcess, echo: Echo, body: bytes
) -> None:
    answer = await gateway.request("POST", CREATE, data=body, headers=JSON)

    assert (answer.status, reached(echo)) == (400, [])


@pytest.mark.parametrize("coding", list(CODERS))
async def test_a_bomb_ends_here_and_takes_no_memory(
    gateway: GatewayProcess, echo: Echo, coding: str
) -> None:
    bomb = CODERS[coding](bytes(128 * MIB))
    process = psutil.Process(gateway.pid)
    before = process.memory_info().rss

    for _ in range(5):
        answer = await gateway.request(
            "POST", "/x", data=bomb, headers={**JSON, "Content-Encoding": coding}
        )
        assert (answer.status, reached(echo)) == (413, [])

    assert process.memory_info().rss - before < 64 * MIB  # half of what one would become


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip"])
async def test_a_coding_that_cannot_be_judged_is_not_taken(
    gateway: GatewayProcess, echo: Echo, coding: str
) -> None:
    headers = {**JSON, "Content-Encoding": coding}
    answer = await gateway.request("POST", "/x", data=b"x", headers=headers)

    assert (answer.status, answer.headers["Accept-Encoding"]) == (415, "gzip, zstd")
    assert reached(echo) == []


async def parts(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_json_that_does_not_say_so_is_judged_all_the_same(
    gateway: GatewayProcess, echo: Echo, *, is_chunked: bool
) -> None:
    body = b'  {"url": "<script>"}'
    async with aiohttp.ClientSession(
        headers={"X-API-Key": KEY}, skip_auto_headers=["Content-Type"]
    ) as session:
        data = parts(body[:1], body[1:]) if is_chunked else body
        async with session.post(gateway.public + "/x", data=data) as answer:
            assert (answer.status, reached(echo)) == (422, [])


async def test_an_upload_that_does_not_say_what_it_is_passes_whole(
    gateway: GatewayProcess, echo: Echo
) -> None:
    pieces = [b"--", b"x" * 300_000, b"{}"]
    async with (
        aiohttp.ClientSession(
            headers={"X-API-Key": KEY}, skip_auto_headers=["Content-Type"]
        ) as session,
        session.post(gateway.public + "/x", data=parts(*pieces)) as answer,
    ):
        assert answer.status == 200

    assert [each.body for each in echo.arrived if each.method == "POST"] == [b"".join(pieces)]


async def test_a_creation_larger_than_its_route_takes_is_a_413(
    gateway: GatewayProcess, echo: Echo
) -> None:
    body = b'{"url": "' + b"x" * 65_536 + b'"}'

    answer = await gateway.request("POST", CREATE, data=body, headers=JSON)

    assert (answer.status, reached(echo)) == (413, [])
