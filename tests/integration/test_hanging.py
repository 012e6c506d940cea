"""What hangs holds nobody up: requests, probes and deliveries go on, and health names it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.support.inside import GatewayInside, StatusUpstream
from tests.support.receiver import Receiver
from tests.support.system import GatewayProcess, eventually


async def component(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await gateway.health())["components"][name]
    return found


async def becomes(gateway: GatewayProcess, name: str, status: str) -> dict[str, Any]:
    """The component, once it is in this state."""

    async def is_there() -> bool:
        found: bool = (await component(gateway, name))["status"] == status
        return found

    await eventually(f"{name} is {status}", is_there)
    return await component(gateway, name)


async def probes(gateway: GatewayProcess) -> list[int]:
    paths = ("/health/live", "/health/ready")
    return [(await gateway.ask_admin(path)).status for path in paths]


@contextmanager
def hung_disk(gateway: GatewayInside) -> Iterator[None]:
    """Both threads of the store wait for a disk that does not answer."""
    disk = threading.Event()
    database = gateway.gateway.stores._database
    for worker in (database._writer, database._reader):
        assert worker is not None
        worker.submit(lambda _: disk.wait(60)).add_done_callback(lambda done: done.exception())
    try:
        yield
    finally:
        disk.set()


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """Takes connections and never answers."""
    gone = asyncio.Event()

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        gone.set()
        server.close()


async def test_a_hung_disk_blocks_no_request_and_no_probe_and_loses_no_job(tmp_path: Path) -> None:
    async with (
        StatusUpstream() as upstream,
        GatewayInside(
            tmp_path,
            upstream.url,
            store={"sqlite": {"timeout": "200ms", "path": str(tmp_path / "gateway.db")}},
            health={"interval": "50ms", "timeout": "100ms"},
        ) as gateway,
    ):
        first = await gateway.create()
        with hung_disk(gateway):
            named = await becomes(gateway, "sqlite", "unhealthy")

            assert named["error"] == "no answer within 0.1 s"
            assert named["since"] is not None
            assert (await gateway.ask_admin("/health")).status == 503
            assert await probes(gateway) == [200, 200]
            assert (await gateway.status(first))["job_id"] == first
            second = await gateway.create()  # kept in memory until the disk is back

            async def is_counted() -> bool:
                found: bool = (await component(gateway, "jobs"))["active"] == 2
                return found

            await eventually("the job that is not on disk is in the queue", is_counted)
            refused = await gateway.request("GET", "/api/v1/webhooks")
            assert refused.status == 503
        await becomes(gateway, "sqlite", "healthy")
        upstream.put(second, "Completed", 100.0)

        timeline = await gateway.finish(second)

    assert [event["type"] for event in timeline][-1] == "job.completed"


async def test_a_dependency_that_never_answers_holds_up_no_delivery(tmp_path: Path) -> None:
    async with (
        silent_server() as url,
        StatusUpstream() as upstream,
        Receiver() as receiver,
        GatewayProcess(
            tmp_path,
            upstream.url,
            health={
                "interval": "50ms",
                "timeout": "100ms",
                "dependencies": {"collector": {"url": url}},
            },
        ) as gateway,
    ):
        named = await becomes(gateway, "collector", "unhealthy")
        await gateway.register(receiver.url, ["job.completed"])
        job_id = await gateway.create()
        upstream.put(job_id, "Completed", 100.0)
        (delivered,) = await receiver.wait_for(1)

        assert delivered.event == "job.completed"
        assert named["since"] is not None
        assert await probes(gateway) == [200, 200]
        health = await gateway.ask_admin("/health")
        assert (health.status, health.document["status"]) == (200, "degraded")


async def test_a_log_that_nobody_reads_holds_up_no_request(tmp_path: Path) -> None:
    pipe = tmp_path / "gateway.log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # open at both ends, and not read
    try:
        async with (
            StatusUpstream() as upstream,
            GatewayProcess(
                tmp_path, upstream.url, health={"interval": "50ms", "slow": "100ms"}
            ) as gateway,
        ):
            for _ in range(10):  # 500 access lines are more than the pipe takes
                asked = [gateway.request("GET", "/api/v1/jobs") for _ in range(50)]
                assert {answer.status for answer in await asyncio.gather(*asked)} == {200}

            named = await becomes(gateway, "log", "degraded")
            assert named["error"].startswith("the log's reader stands still")
            assert named["since"] is not None
            assert await probes(gateway) == [200, 200]

            while True:  # at last somebody reads
                try:
                    os.read(reader, 1 << 20)
                except BlockingIOError:
                    if (await component(gateway, "log"))["status"] == "healthy":
                        break
    finally:
        os.close(reader)


async def test_a_hung_disk_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    async with (
        StatusUpstream() as upstream,
        GatewayInside(
            tmp_path,
            upstream.url,
            store={"sqlite": {"timeout": "200ms", "path": str(tmp_path / "gateway.db")}},
        ) as gateway,
    ):
        await gateway.create()
        with hung_disk(gateway):
            await gateway.create()  # in memory, and to be given up at the end
            async with asyncio.timeout(15):
                await gateway.gateway.stop()
