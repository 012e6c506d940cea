"""The cache over real sockets: what is asked of the upstream, and what nobody else is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.echo import Answer, Echo
from tests.support.system import KEY, OTHER_KEY, AnalysisApi, GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_ENTRY = 64 * 1024
WAIT_SECONDS = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream: Echo, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    policies = {"cache": {"max_entry": MAX_ENTRY}}
    url = f"http://127.0.0.1:{upstream.port}"
    folder = tmp_path_factory.mktemp("gw")
    async with GatewayProcess(folder, url, policies=policies, health={"interval": "1h"}) as process:
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"X-API-Key": KEY}) as session:
        yield session


NUMBERS = count()


def address(gateway: GatewayProcess) -> str:
    """One that no other test has asked for."""
    return f"{gateway.public}/pages/{next(NUMBERS)}"


def numbered(**headers: str) -> Answer:
    """Each answer with its own number."""
    numbers = count(1)
    fields = {"Cache-Control": "max-age=60"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if not request.path.startswith("/pages"):  # the gateway's own first questions
            return web.Response(status=404)
        return web.Response(text=f"answer {next(numbers)}", headers=fields)

    return answer


async def text(session: aiohttp.ClientSession, url: str, **headers: str) -> str:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.get(url, headers=fields) as response:
        assert response.status == 200
        return await response.text()


async def test_one_keys_answer_is_never_anothers(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    echo.answer = numbered()
    url = address(gateway)

    assert [await text(client, url) for _ in range(2)] == ["answer 1"] * 2
    assert await text(client, url, X_API_Key=OTHER_KEY) == "answer 2"
    assert await text(client, url) == "answer 1"


async def test_how_a_path_ends_makes_nothing_cacheable(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    echo.answer = numbered(Cache_Control="private")
    for suffix in ("/x.css", "/x.js", "/logo.png", "/%2e/x.css", "?x=.css"):
        url = address(gateway) + suffix
        assert await text(client, url) != await text(client, url)


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Forwarded_Host": "evil.example"},
        {"X_Forwarded_Proto": "nothttps"},
        {"X_Original_URL": "/evil"},
        {"X_HTTP_Method_Override": "HEAD"},
        {"Host": "evil.example"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_a_field_that_no_key_holds_poisons_nothing(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        seen = [value for value in request.headers.values() if "evil" in value or "HEAD" in value]
        return web.Response(text=f"seen: {seen}", headers={"Cache-Control": "max-age=60"})

    echo.answer = answer
    url = address(gateway)
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.get(url, headers=fields) as response:
        await response.read()

    assert await text(client, url) == "seen: []"


async def test_any_number_of_equal_requests_is_one(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    gate, arrived, asked = asyncio.Event(), asyncio.Event(), count()
    made: list[int] = []

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        made.append(next(asked))
        arrived.set()
        await gate.wait()
        return web.Response(text="one", headers={"Cache-Control": "max-age=60"})

    echo.answer = answer
    url = address(gateway)
    requests = [asyncio.create_task(text(client, url)) for _ in range(50)]
    async with asyncio.timeout(WAIT_SECONDS):
        await arrived.wait()
    gate.set()

    assert {await each for each in requests} == {"one"}
    assert made == [0]


async def test_a_part_and_the_head_of_a_stored_page(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    echo.answer = numbered(ETag='"a"')
    url = address(gateway)
    await text(client, url)

    async with client.get(url, headers={"Range": "bytes=0-5"}) as part:
        assert (part.status, await part.read()) == (206, b"answer")
        assert (part.headers["Content-Range"], part.content_length) == ("bytes 0-5/8", 6)
    async with client.head(url) as head:
        assert (head.status, head.content_length, await head.read()) == (200, 8, b"")
    async with client.get(url, headers={"If-None-Match": '"a"'}) as known:
        assert (known.status, await known.read(), known.headers["ETag"]) == (304, b"", '"a"')
    async with client.get(url, headers={"Range": "bytes=99-"}) as beyond:
        assert (beyond.status, await beyond.read()) == (416, b"")
    assert await text(client, url) == "answer 1"


def in_pieces(pieces: int, gate: asyncio.Event, made: list[int]) -> Answer:
    """A stream of this many pieces of 1 KiB, the first at once, the rest when the gate opens."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        made.append(1)
        response = web.StreamResponse(headers={"Cache-Control": "max-age=60"})
        await response.prepare(request)
        await response.write(b"x" * 1024)
        await gate.wait()
        for _ in range(pieces - 1):
            await response.write(b"x" * 1024)
        await response.write_eof()
        return response

    return answer


@pytest.mark.parametrize(("pieces", "is_kept"), [(64, True), (65, False)])
async def test_a_stream_is_passed_on_at_once_and_kept_within_its_bound(
    gateway: GatewayProcess,
    echo: Echo,
    client: aiohttp.ClientSession,
    pieces: int,
    *,
    is_kept: bool,
) -> None:
    gate = asyncio.Event()
    made: list[int] = []
    echo.answer = in_pieces(pieces, gate, made)
    url = address(gateway)
    async with asyncio.timeout(WAIT_SECONDS), client.get(url) as response:
        assert await response.content.readexactly(1024) == b"x" * 1024
        gate.set()
        assert len(await response.read()) == (pieces - 1) * 1024

    assert len(await text(client, url)) == pieces * 1024
    assert len(made) == (1 if is_kept else 2)


async def test_a_change_ends_what_is_stored(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    echo.answer = numbered()
    url = address(gateway)
    await text(client, url)
    async with client.put(url, data=b"new", headers={"X-API-Key": OTHER_KEY}) as response:
        assert response.headers["Cache-Status"] == "gateway; fwd=method"

    assert await text(client, url) == "answer 3"


async def test_only_if_cached_is_a_problem_of_its_own(
    gateway: GatewayProcess, echo: Echo, client: aiohttp.ClientSession
) -> None:
    async with client.get(
        address(gateway), headers={"Cache-Control": "only-if-cached"}
    ) as response:
        document = await response.json(content_type="application/problem+json")

    assert (response.status, document["type"]) == (504, "urn:problem-type:gateway:not-cached")
    assert response.headers["Cache-Status"] == "gateway"


async def test_a_poll_of_a_job_that_stands_still_is_a_304(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with (
        AnalysisApi(speed=1000) as api,
        GatewayProcess(tmp_path_factory.mktemp("gw"), api.url) as gateway,
    ):
        job_id = await gateway.create()
        await gateway.finish(job_id)
        path = f"/api/v1/analysis/{job_id}/status"
        tag = (await gateway.request("GET", path)).headers["ETag"]

        poll = await gateway.request("GET", path, headers={"If-None-Match": tag})

        assert (poll.status, poll.body, poll.headers["ETag"]) == (304, b"", tag)
        assert poll.headers["Cache-Status"].startswith("gateway; hit; ttl=")
        assert int(poll.headers["Cache-Status"].rpartition("=")[2]) > 3600
