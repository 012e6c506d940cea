"""Several workers are one gateway: one of it all for those who ask, and none lost who is served."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from gateway.core.credential import format_key, hash_key
from tests.support import worker
from tests.support.system import KEY, AnalysisApi, GatewayProcess, eventually
from tests.support.valkey import Valkey
from tests.support.worker import WORKERS, all_serve, is_alive, kill, statuses, worker_pids

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN_KEY = format_key(b"an-operator's-key-to-test")
AFAR_KEY = format_key(b"one-for-another-network!!")
ROUTE = "/api/v1/jobs"
LIMIT = 7
SERVED = "gateway_http_request_duration_seconds_count"
POLICIES = {
    "auth": {
        "entries": [
            {"id": "test", "hash": hash_key(KEY), "owner": "team"},
            {"id": "op", "hash": hash_key(ADMIN_KEY), "owner": "ops", "scopes": ["admin"]},
            {
                "id": "afar",
                "hash": hash_key(AFAR_KEY),
                "owner": "ops",
                "scopes": ["admin"],
                "networks": ["192.0.2.0/24"],
            },
        ]
    },
    "rate_limits": {
        "limits": {
            "few": {"limit": LIMIT, "window": "1h", "by": ["owner"], "routes": ["jobs-history"]}
        }
    },
}

Launch = Callable[..., Awaitable[GatewayProcess]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[AnalysisApi]:
    async with AnalysisApi() as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    server: Valkey, upstream: AnalysisApi, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    """One for the stories that leave it as it was, or with other workers."""
    folder = tmp_path_factory.mktemp("gateway")
    given = worker.settings(
        server,
        policies=POLICIES,
        server={"public_metrics": True, "socket": str(folder / "api.sock")},
    )
    async with GatewayProcess(folder, upstream.url, **given) as process:
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def launch(server: Valkey, upstream: AnalysisApi, tmp_path: Path) -> AsyncIterator[Launch]:
    """Starts a gateway for one story alone."""
    async with AsyncExitStack() as stack:

        async def start(**overrides: Any) -> GatewayProcess:
            given = worker.settings(server, **{"policies": POLICIES, **overrides})
            process = GatewayProcess(tmp_path, upstream.url, **given)
            return await stack.enter_async_context(process)

        yield start


# --- one of it all -----------------------------------------------------------------------------


async def test_connections_are_spread_over_the_workers(gateway: GatewayProcess) -> None:
    port = int(gateway.public.rpartition(":")[2])
    async with AsyncExitStack() as stack:
        for _ in range(48):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)

        async def accepted() -> bool:
            counts = [
                sum(
                    each.status == psutil.CONN_ESTABLISHED and each.laddr[1] == port for each in has
                )
                for has in (psutil.Process(pid).net_connections() for pid in worker_pids(gateway))
            ]
            return sum(counts) >= 48 and min(counts) > 0

        await eventually("every worker has some", accepted)


async def test_metrics_are_the_sum_wherever_they_are_asked_for(gateway: GatewayProcess) -> None:
    route = f"{SERVED}{{method=GET,route=job-list,status=200}}"
    before = (await gateway.metrics()).get(route, 0.0)

    assert await statuses(gateway, ROUTE, 30) == {200: 30}

    found = await gateway.metrics()
    assert found[route] - before == 30
    assert found["gateway_workers_ready"] == WORKERS
    public = (await gateway.request("GET", "/metrics")).body.decode()
    assert f'{SERVED}{{method="GET",route="job-list",status="200"}} {found[route]}' in public


async def test_connections_open_at_all_workers_are_one_gauge(gateway: GatewayProcess) -> None:
    before = (await gateway.metrics())["gateway_active_connections"]
    port = int(gateway.public.rpartition(":")[2])
    async with AsyncExitStack() as stack:
        for _ in range(16):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)

        async def counted() -> bool:
            return (await gateway.metrics())["gateway_active_connections"] >= before + 16

        await eventually("all are counted", counted)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_has_nothing_to_say_of_the_exposition(gateway: GatewayProcess) -> None:
    await statuses(gateway, ROUTE, 4)
    exposition = (await gateway.ask_admin("/metrics")).body

    done = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=exposition,
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")


async def test_health_is_of_all_and_says_whose(gateway: GatewayProcess) -> None:
    pids = await all_serve(gateway)
    health = await gateway.health()

    assert pids == worker_pids(gateway)
    assert health["components"]["redis"]["worker"] in range(WORKERS)
    assert health["components"]["workers"]["ready"] == WORKERS
    assert (await gateway.request("GET", "/health")).document == {"status": health["status"]}
    ready = await gateway.ask_admin("/health/ready")
    assert (ready.status, ready.document) == (200, {"status": "ready"})
    assert (await gateway.ask_admin("/health/live")).status == 200


async def test_a_key_made_at_the_admin_listener_is_known_to_every_worker(
    gateway: GatewayProcess,
) -> None:
    async with aiohttp.ClientSession(headers={"X-API-Key": ADMIN_KEY}) as operator:
        document = {"owner": "partner", "scopes": ["jobs:read"]}
        async with operator.post(f"{gateway.admin}/keys", json=document) as response:
            assert response.status == 201, await response.text()
            made = await response.json()

        async def everywhere() -> bool:
            return await statuses(gateway, ROUTE, 24, made["key"]) == {200: 24}

        await eventually("it is known", everywhere)
        async with operator.delete(f"{gateway.admin}/keys/{made['id']}") as response:
            assert response.status == 204

        async def nowhere() -> bool:
            return await statuses(gateway, ROUTE, 24, made["key"]) == {401: 24}

        await eventually("it is known no more", nowhere)


async def test_the_admin_listener_tells_the_workers_who_asks(gateway: GatewayProcess) -> None:
    async with aiohttp.ClientSession() as session:
        forged = {"X-API-Key": AFAR_KEY, "X-Gateway-Client": "192.0.2.1"}
        async with session.get(f"{gateway.admin}/keys", headers=forged) as response:
            assert response.status == 401
        async with session.get(
            f"{gateway.admin}/keys", headers={"X-API-Key": ADMIN_KEY}
        ) as response:
            assert response.status == 200


async def test_a_terminals_interrupt_is_for_the_parent_alone(gateway: GatewayProcess) -> None:
    sessions = {os.getsid(pid) for pid in worker_pids(gateway)}

    assert os.getsid(gateway.pid) not in sessions


async def test_what_no_worker_has_is_a_problem_of_the_admin_listener(
    gateway: GatewayProcess,
) -> None:
    answer = await gateway.ask_admin("/nowhere")

    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_the_sockets_between_them_are_for_one_user(gateway: GatewayProcess) -> None:
    assert worker.control_directory(gateway).stat().st_mode & 0o777 == 0o700


async def test_a_limit_is_one_limit(gateway: GatewayProcess) -> None:
    assert await statuses(gateway, "/api/v1/jobs/history", 30) == {200: LIMIT, 429: 30 - LIMIT}


# --- one that dies, hangs or is renewed ----------------------------------------------------------


async def test_a_killed_worker_is_replaced_and_new_clients_do_not_notice(
    gateway: GatewayProcess,
) -> None:
    pids = await all_serve(gateway)
    await statuses(gateway, ROUTE, 20)
    before = await gateway.metrics()

    kill(pids[1], signal.SIGKILL)
    found = await statuses(gateway, ROUTE, 200)
    renewed = await all_serve(gateway, besides=[pids[1]])

    assert found == {200: 200}
    assert renewed[0] == pids[0]
    after = await gateway.metrics()
    assert after[SERVED] >= before[SERVED] + 200
    counters = [name for name in before if name.startswith("gateway_") and "_total" in name]
    assert counters
    assert [name for name in counters if after[name] < before[name]] == []
    assert after["gateway_worker_restarts_total{reason=died}"] == 1
    assert '"event":"worker_died"' in gateway.log


async def test_a_worker_that_stands_still_is_named_and_its_clients_go_to_another(
    gateway: GatewayProcess,
) -> None:
    pids = await all_serve(gateway)
    kill(pids[0], signal.SIGSTOP)
    try:

        async def named() -> bool:
            said = (await gateway.health())["components"]["workers"]
            return bool(
                said["error"] == "worker 0 does not answer" and said["status"] == "degraded"
            )

        await eventually("health names it", named)
        assert (await gateway.ask_admin("/health/ready")).status == 200

        async def taken_over() -> bool:
            try:
                return await statuses(gateway, ROUTE, 30, seconds=1.0) == {200: 30}
            except TimeoutError:
                return False

        await eventually("another accepts in its stead", taken_over)
        before = (await gateway.metrics())[SERVED]
        assert (await gateway.metrics())[SERVED] >= before
    finally:
        kill(pids[0], signal.SIGCONT)
    assert await all_serve(gateway) == pids


async def test_renewing_the_workers_loses_no_request(gateway: GatewayProcess) -> None:
    pids = await all_serve(gateway)
    before = await gateway.metrics()
    stop = asyncio.Event()
    served = 0

    async def client(*, stays: bool) -> None:
        nonlocal served
        connector = aiohttp.TCPConnector(force_close=not stays)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not stop.is_set():
                async with session.get(
                    gateway.public + ROUTE, headers={"X-API-Key": KEY}
                ) as response:
                    assert response.status == 200
                    await response.read()
                    served += 1

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(client(stays=number % 2 == 0))
        gateway.signal(signal.SIGHUP)
        renewed = await all_serve(gateway, besides=pids)

        async def gone() -> bool:
            return not any(map(is_alive, pids))

        await eventually("the old ones have ended", gone)
        stop.set()

    assert not set(renewed) & set(pids)
    assert served > 100

    async def all_counted() -> bool:  # by those that ended too, who told when they did
        return (await gateway.metrics())[SERVED] - before.get(SERVED, 0) == served

    await eventually("each request is counted once", all_counted)
    restarts = (await gateway.metrics())["gateway_worker_restarts_total{reason=reload}"]
    assert restarts >= WORKERS


async def test_the_unix_socket_is_served_still_when_all_were_renewed(
    gateway: GatewayProcess,
) -> None:
    pids = await all_serve(gateway)
    gateway.signal(signal.SIGHUP)
    await all_serve(gateway, besides=pids)
    connector = aiohttp.UnixConnector(str(gateway.folder / "api.sock"), force_close=True)
    async with aiohttp.ClientSession(connector=connector, headers={"X-API-Key": KEY}) as session:
        for _ in range(8):
            async with session.get(f"http://gateway{ROUTE}") as response:
                assert response.status == 200


async def test_bad_settings_renew_nothing(gateway: GatewayProcess) -> None:
    pids = await all_serve(gateway)
    config = gateway.folder / "gateway.yaml"
    good = config.read_text()
    config.write_text("nonsense: 1\n" + good)
    try:
        gateway.signal(signal.SIGHUP)

        async def refused() -> bool:
            return '"event":"settings_refused"' in gateway.log

        await eventually("it says so", refused)
    finally:
        config.write_text(good)

    assert await all_serve(gateway) == pids
    assert await statuses(gateway, ROUTE, 8) == {200: 8}


# --- the end -------------------------------------------------------------------------------------


async def test_a_drain_reaches_every_worker_and_sigterm_ends_them_all(launch: Launch) -> None:
    gateway = await launch(server={"drain_timeout": "5s"})
    pids, folder = worker_pids(gateway), worker.control_directory(gateway)
    port = int(gateway.public.rpartition(":")[2])
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(32):  # enough for some at each
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            clients.append(reader)

        await gateway.request_drain()
        ready = await gateway.ask_admin("/health/ready")
        left = await asyncio.wait_for(asyncio.gather(*(each.read() for each in clients)), 20)

    assert (ready.status, ready.document["status"]) == (503, "draining")
    assert left == [b""] * 32
    assert await gateway.terminate() == 0
    with pytest.raises(ConnectionError):
        await gateway.speak(b"GET /health HTTP/1.0\r\n\r\n")
    assert not any(map(is_alive, pids))
    assert not folder.exists()
    assert "Traceback" not in gateway.log


async def test_no_worker_outlives_a_killed_parent(launch: Launch) -> None:
    gateway = await launch()
    pids, folder = worker_pids(gateway), worker.control_directory(gateway)
    port = int(gateway.public.rpartition(":")[2])

    await gateway.kill()

    async def gone() -> bool:
        return not any(map(is_alive, pids))

    await eventually("no worker is left", gone)
    assert not folder.exists()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


async def test_a_worker_that_cannot_start_is_tried_again_after_a_while(launch: Launch) -> None:
    gateway = await launch()
    # What every new worker needs is gone; the old ones do without.
    shutil.rmtree(worker.control_directory(gateway))

    kill(worker_pids(gateway)[0], signal.SIGKILL)

    async def waits() -> bool:
        return '"deaths":2,"next_start_seconds":0.5' in gateway.log

    await eventually("its second death is met with a pause", waits)
    assert await statuses(gateway, ROUTE, 40) == {200: 40}


async def test_workers_that_die_while_redis_is_away_leave_nobody_without_an_answer(
    launch: Launch, tmp_path: Path
) -> None:
    with Valkey(tmp_path / "own") as own:
        gateway = await launch(environment={"REDIS_URL": own.url})
        pids = await all_serve(gateway)
        own.kill()

        kill(pids[1], signal.SIGKILL)

        async def covered() -> bool:
            said = (await gateway.health())["components"]["workers"]
            return bool(said["error"] == "worker 1 is not running")

        await eventually("health says who is missing", covered)
        assert await statuses(gateway, ROUTE, 40) == {200: 40}
        assert (await gateway.ask_admin("/health/ready")).status == 200
        own.start()
        await all_serve(gateway, besides=[pids[1]])


async def test_a_port_in_use_is_refused_before_any_worker_starts(launch: Launch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError) as refused:
            await launch(server={"public": {"host": "127.0.0.1", "port": port}})

    assert f"port {port} on 127.0.0.1 is in use" in str(refused.value)
    assert "worker_started" not in str(refused.value)


async def test_what_no_worker_can_start_with_is_said_once(launch: Launch, tmp_path: Path) -> None:
    pem = tmp_path / "no-certificate.pem"
    pem.write_text("this is none")
    with pytest.raises(AssertionError) as refused:
        await launch(server={"tls": {"certificate": str(pem), "key": str(pem)}})

    said = (tmp_path / "gateway.log").read_text()
    assert len([line for line in said.splitlines() if line.startswith("gateway: ")]) == 1, said
    assert said.count('"event":"worker_started"') == 1
    assert "worker_ended" not in str(refused.value)
