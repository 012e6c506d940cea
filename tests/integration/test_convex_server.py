"""The server before `convex/` speaks Convex's HTTP API, and fails when told to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.support.convex import ARTIFACT, ConvexServer, require_server
from tests.support.convex_caller import UPDATE, Caller, progress


@pytest.fixture(scope="module")
def convex_process() -> Iterator[ConvexServer]:
    require_server()
    with ConvexServer() as server:
        yield server


@pytest.fixture
async def convex(convex_process: ConvexServer) -> AsyncIterator[Caller]:
    await convex_process.reset()
    async with aiohttp.ClientSession() as session:
        yield Caller(convex_process, session)


async def test_a_wrong_key_is_refused(convex: Caller) -> None:
    body = {"path": UPDATE, "args": progress(), "format": "json"}

    status, answer = await convex.post("mutation", body, key="wrong")
    malformed, _ = await convex.post("mutation", body, key="", scheme="x")
    token, _ = await convex.post("mutation", body, key="token", scheme="Bearer")

    assert (status, answer["code"]) == (401, "BadAdminKey")
    assert set(answer) == {"code", "message"}
    assert (malformed, token) == (400, 401)
    assert await convex.rows("jobs") == []


async def test_an_internal_function_looks_unknown_without_the_key(convex: Caller) -> None:
    body = {"path": UPDATE, "args": progress(), "format": "json"}

    status, hidden = await convex.post("mutation", body)
    unknown = await convex.error("mutation", "jobs:nothing", {})

    assert status == 200
    assert f"Could not find public function for '{UPDATE}'." in hidden["errorMessage"]
    assert "Could not find public function for 'jobs:nothing'." in unknown["errorMessage"]
    assert await convex.rows("jobs") == []


async def test_a_function_is_called_by_its_own_kind(convex: Caller) -> None:
    answer = await convex.error("query", UPDATE, progress())

    wording = "Trying to execute jobs.js:updateProgress as Query, but it is defined as Mutation."
    assert wording in answer["errorMessage"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "BadJsonBody"),
        ({"args": {}}, "BadJsonBody"),
        ({"path": UPDATE}, "BadJsonBody"),
        ({"path": "no way", "args": {}}, "BadConvexFunctionIdentifier"),
        ({"path": UPDATE, "args": {}, "format": "xml"}, "BadFormat"),
    ],
)
async def test_a_malformed_request_is_refused(convex: Caller, body: object, code: str) -> None:
    status, answer = await convex.post("mutation", body, key=convex.server.deploy_key)

    assert (status, answer["code"]) == (400, code)


async def test_numbers_are_floats_and_empty_members_are_left_out(convex: Caller) -> None:
    body = {"path": UPDATE, "args": progress(sequence=12), "format": "json"}
    headers = {"Authorization": f"Convex {convex.server.deploy_key}"}

    async with convex.session.post(
        f"{convex.server.url}/api/mutation", json=body, headers=headers
    ) as response:
        text = await response.text()

    assert text == '{"status":"success","value":{"applied":true,"sequence":12.0}}'


async def test_production_hides_messages_and_keeps_error_data() -> None:
    require_server()
    with ConvexServer(production=True) as server:
        async with aiohttp.ClientSession() as session:
            caller = Caller(server, session)
            coded = await caller.error("mutation", UPDATE, progress(sequence=0))
            plain = await caller.error("mutation", UPDATE, progress(errorType=None))

    assert coded["errorMessage"].endswith("] Server Error")
    assert coded["errorData"]["code"] == "INVALID_ARGUMENT"
    assert plain["errorMessage"].endswith("] Server Error")
    assert "errorData" not in plain


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("503", "OptimisticConcurrencyControlFailure"),
        ("429", "RateLimited"),
        ("500", "InternalServerError"),
        ("403", "BadDeployKey"),
    ],
)
async def test_a_status_fault_strikes_as_often_as_ordered(
    convex: Caller, mode: str, code: str
) -> None:
    await convex.server.fault(mode, count=2, path=UPDATE)
    body = {"path": UPDATE, "args": progress(), "format": "json"}

    answers = [await convex.post("mutation", body, key=convex.server.deploy_key) for _ in range(3)]

    assert [status for status, _ in answers] == [int(mode), int(mode), 200]
    assert answers[0][1]["code"] == code
    tally = (await convex.server.stats())["paths"][UPDATE]
    assert tally == {"received": 3, "succeeded": 1, "failed": 0, "faulted": 2}


async def test_a_fault_spares_other_functions(convex: Caller) -> None:
    await convex.server.fault("503", path=UPDATE)

    assert await convex.value("query", "jobs:get", {"jobId": "j1"}) is None
    assert (await convex.server.stats())["faults"] == 1


async def test_a_lost_reply_is_committed_once(convex: Caller) -> None:
    await convex.server.fault("lost_reply", path=UPDATE)

    with pytest.raises(aiohttp.ClientError):
        await convex.update(sequence=4, progressPercentage=40)

    assert (await convex.job())["progressPercentage"] == 40
    assert await convex.update(sequence=4, progressPercentage=40) == {
        "applied": False,
        "sequence": 4,
    }


async def test_a_dropped_call_is_not_run(convex: Caller) -> None:
    await convex.server.fault("drop")

    with pytest.raises(aiohttp.ClientError):
        await convex.update()

    assert await convex.rows("jobs") == []


async def test_an_answer_can_be_half_a_document_or_a_page(convex: Caller) -> None:
    await convex.server.fault("truncated")
    with pytest.raises(ValueError, match="line 1 column"):
        await convex.update(sequence=1)
    await convex.server.fault("html")
    with pytest.raises(aiohttp.ContentTypeError):
        await convex.update(sequence=2)

    assert (await convex.job())["sequence"] == 1


async def test_a_function_error_can_be_ordered(convex: Caller) -> None:
    await convex.server.fault("error", message="Uncaught Error: no")

    answer = await convex.error("mutation", UPDATE, progress())

    assert "Uncaught Error: no" in answer["errorMessage"]
    assert await convex.rows("jobs") == []


async def test_held_calls_stay_open_until_released(convex: Caller) -> None:
    await convex.server.fault("hold", count=3)
    calls = [asyncio.create_task(convex.update(sequence=n)) for n in (1, 2, 3)]

    seen = await convex.server.wait_until(lambda stats: stats["open"] == 3)
    assert seen["peakOpen"] == 3
    assert await convex.rows("jobs") == []
    await convex.server.clear_faults()
    await asyncio.gather(*calls)

    assert (await convex.job())["sequence"] == 3


async def test_a_delayed_call_is_answered_after_those_behind_it(convex: Caller) -> None:
    await convex.server.fault("delay", seconds=0.2)
    first = asyncio.create_task(convex.update(sequence=1))
    await convex.server.wait_until(lambda stats: stats["open"] == 1)

    assert (await convex.update(sequence=2))["applied"]

    assert await first == {"applied": False, "sequence": 2}


async def test_an_unknown_fault_or_table_is_refused(convex: Caller) -> None:
    with pytest.raises(RuntimeError, match="no fault has the mode frog"):
        await convex.server.fault("frog")
    with pytest.raises(RuntimeError, match="no such table"):
        await convex.server.dump("frogs")


async def test_the_port_outlives_a_restart_and_the_rows_do_not(convex: Caller) -> None:
    with ConvexServer() as server:
        caller = Caller(server, convex.session)
        await caller.update()
        before = server.url
        server.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await caller.update(sequence=2)
        server.start()

        assert server.url == before
        assert await caller.rows("jobs") == []


@pytest.fixture
def orphanage() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process that started a server and waits to be killed; and that server's URL."""
    require_server()
    code = (
        "import subprocess, sys\n"
        f"node = subprocess.Popen(['node', {str(ARTIFACT)!r}, '--deploy-key', 'k'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "print(node.stdout.readline().decode().split()[-1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None
        yield starter, starter.stdout.readline().decode().strip()
        starter.kill()


async def test_the_server_ends_when_its_starter_is_killed(
    orphanage: tuple[subprocess.Popen[bytes], str],
) -> None:
    starter, url = orphanage
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/version") as response:
            assert response.status == 200

        starter.kill()

        async with asyncio.timeout(15):
            await wait_refused(session, url)


async def wait_refused(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        try:
            async with session.get(f"{url}/version"):
                await asyncio.sleep(0.01)
        except aiohttp.ClientConnectionError:
            return


def test_a_missing_key_or_a_taken_port_is_said_in_one_line(convex_process: ConvexServer) -> None:
    keyless = subprocess.run(["node", ARTIFACT], capture_output=True, text=True, check=False)
    taken = subprocess.run(
        ["node", ARTIFACT, "--deploy-key", "k", "--port", str(convex_process.port)],
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (keyless.returncode, keyless.stderr.count("\n")) == (2, 1)
    assert taken.returncode == 1
    assert taken.stderr.startswith(f"cannot listen on port {convex_process.port}:")
    assert taken.stderr.count("\n") == 1
