"""Three gateways on one Redis, or on a Cluster: one is killed, paused or cut off, nothing is lost.

The jobs are few and the leases short; what holds is the same: every event once in the timeline, the
timeline without a gap and with one end, every receiver served.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.test_crash import check_deliveries, check_timeline
from tests.support.receiver import Receiver
from tests.support.relay import Relay
from tests.support.system import AnalysisApi, GatewayProcess, eventually
from tests.support.valkey import Valkey, ValkeyCluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEASE_SECONDS = 1.5
RANDOM = random.Random(20261124)


def settings(url: str, **redis: Any) -> dict[str, Any]:
    """Short leases, and enough retries that no absence during a test exhausts any."""
    return {
        "store": {"kind": "redis"},
        "environment": {"REDIS_URL": url},
        "redis": {"url": "${REDIS_URL}", **redis},
        "upstream": {"shared": True},
        "jobs": {"watch": {"lease": f"{LEASE_SECONDS}s"}},
        "webhooks": {
            "timeout": "500ms",
            "max_timeout": "500ms",
            "per_endpoint": 1,
            "lease_margin": "6s",
            "max_retries": 10,
            "retry_delays": ["100ms"] * 2 + ["500ms"] * 8,
        },
    }


class Fleet:
    """Three gateways that share a Redis, each with a folder of its own."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.gateways: list[GatewayProcess] = []

    async def add(self, url: str, overrides: dict[str, Any]) -> None:
        folder = self._folder / f"replica-{len(self.gateways)}"
        folder.mkdir()
        process = GatewayProcess(folder, url, **overrides)
        self.gateways.append(process)
        await self._stack.enter_async_context(process)

    async def create(self, number: int) -> list[str]:
        """So many jobs, created through each in turn."""
        return [await self.gateways[i % len(self.gateways)].create() for i in range(number)]

    async def reconnect(self) -> None:
        """Return once every replica answers from Redis again; until then each says 503."""
        for gateway in self.gateways:

            async def answers(gateway: GatewayProcess = gateway) -> bool:
                answer = await gateway.request("GET", "/api/v1/jobs/history")
                return answer.status == 200

            await eventually("Redis answers", answers)

    async def finish_without(self, absent: int, jobs: Sequence[str]) -> None:
        """Return once every other replica shows the end of every job."""
        for number, gateway in enumerate(self.gateways):
            if number != absent:
                for job_id in jobs:
                    await gateway.finish(job_id)

    async def check(
        self, receiver: Receiver, webhooks: dict[str, str], jobs: Sequence[str]
    ) -> None:
        """The one true history, the same from every replica, and all of it delivered."""
        first, *others = self.gateways
        for job_id in jobs:
            timeline = await first.finish(job_id)
            check_timeline(timeline)
            for other in others:
                assert await other.timeline(job_id) == timeline
        await check_deliveries(first, receiver, webhooks, list(jobs))


@pytest.fixture(params=[Valkey, ValkeyCluster])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Valkey | ValkeyCluster]:
    with request.param(tmp_path / "redis", append_only=True) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        yield Fleet(stack, tmp_path)


def of(server: Valkey | ValkeyCluster) -> dict[str, Any]:
    if isinstance(server, Valkey):
        return settings(server.url)
    nodes = [f"127.0.0.1:{node.port}" for node in server.nodes]
    return settings(server.url, cluster=True, nodes=nodes)


async def start_three(fleet: Fleet, api: AnalysisApi, server: Valkey | ValkeyCluster) -> None:
    await asyncio.gather(*(fleet.add(api.url, of(server)) for _ in range(3)))


async def register(gateway: GatewayProcess, receiver: Receiver) -> dict[str, str]:
    return {"/hook": (await gateway.register(receiver.url_of("/hook")))["id"]}


async def test_replica_killed_at_random_moments_loses_nothing(
    fleet: Fleet, server: Valkey | ValkeyCluster, receiver: Receiver
) -> None:
    async with AnalysisApi(speed=4) as api:
        await start_three(fleet, api, server)
        webhooks = await register(fleet.gateways[0], receiver)
        jobs: list[str] = []
        for _ in range(3):
            before = len(receiver.requests)
            jobs += await fleet.create(3)  # each has two events at the least
            await receiver.wait_for(before + RANDOM.randint(1, 6))
            victim = RANDOM.choice(fleet.gateways)
            await victim.kill()
            await victim.start()
        await fleet.gateways[2].kill()
        await fleet.finish_without(2, jobs)  # what it watched is taken over
        await fleet.gateways[2].start()
        await fleet.check(receiver, webhooks, jobs)


async def test_replica_paused_past_its_lease_writes_nothing_when_it_goes_on(
    fleet: Fleet, server: Valkey | ValkeyCluster, receiver: Receiver
) -> None:
    async with AnalysisApi(speed=3) as api:
        await start_three(fleet, api, server)
        webhooks = await register(fleet.gateways[0], receiver)
        jobs = await fleet.create(6)
        await receiver.wait_for(6)
        victim = fleet.gateways[1]
        victim.signal(signal.SIGSTOP)
        await fleet.finish_without(1, jobs)  # its leases run out, and the others watch to the end
        victim.signal(signal.SIGCONT)
        await fleet.check(receiver, webhooks, jobs)


async def test_redis_restarted_in_the_middle_loses_nothing(
    fleet: Fleet, server: Valkey | ValkeyCluster, receiver: Receiver
) -> None:
    async with AnalysisApi(speed=4) as api:
        await start_three(fleet, api, server)
        webhooks = await register(fleet.gateways[0], receiver)
        jobs = await fleet.create(6)
        await receiver.wait_for(10)
        for node in [server] if isinstance(server, Valkey) else server.nodes:
            node.kill()
        server.start()
        await fleet.reconnect()
        await fleet.check(receiver, webhooks, jobs)


async def test_replica_cut_off_from_redis_leaves_its_jobs_to_the_others(
    fleet: Fleet, receiver: Receiver, tmp_path: Path
) -> None:
    with Valkey(tmp_path / "redis", append_only=True) as server:
        async with AnalysisApi(speed=3) as api, Relay(server.port) as relay:
            await fleet.add(api.url, settings(server.url))
            await fleet.add(api.url, settings(f"redis://127.0.0.1:{relay.port}/0"))
            await fleet.add(api.url, settings(server.url))
            webhooks = await register(fleet.gateways[0], receiver)
            jobs = await fleet.create(6)
            await receiver.wait_for(8)
            relay.cut()
            for job_id in jobs:
                check_timeline(await fleet.gateways[0].finish(job_id))
            relay.mend()
            await fleet.check(receiver, webhooks, jobs)


async def test_shared_upstream_is_asked_by_one_replica_about_each_job(
    fleet: Fleet, receiver: Receiver, tmp_path: Path
) -> None:
    with Valkey(tmp_path / "redis") as server:
        async with AnalysisApi(speed=15) as api:
            await start_three(fleet, api, server)
            jobs = await fleet.create(6)
            for job_id in jobs:
                await fleet.gateways[0].finish(job_id)
            assert (await api.asked())["stream"] == len(jobs)


async def test_sidecar_that_is_gone_ends_its_jobs_as_lost(
    fleet: Fleet, receiver: Receiver, tmp_path: Path
) -> None:
    with Valkey(tmp_path / "redis", append_only=True) as server:
        async with AnalysisApi(speed=0.5) as one, AnalysisApi(speed=4) as two:
            for name, api in (("pod-1", one), ("pod-2", two)):
                own = settings(server.url)
                own["upstream"] = {"instance": name}
                await fleet.add(api.url, own)
            first, second = fleet.gateways
            webhooks = await register(second, receiver)
            lost, kept = await first.create(), await second.create()
            check_timeline(await second.finish(kept))
            # Its neighbour answers with what the first has seen; that the neighbour's own upstream
            # denies the job says nothing.
            path = f"/api/v1/analysis/{lost}/status"
            assert (await second.request("GET", path)).document["job_id"] == lost
            answer = await second.request("GET", path, headers={"Cache-Control": "no-cache"})
            assert answer.status == 404
            assert not await second.ended(lost)
            await first.kill()
            timeline = await second.finish(lost)
            check_timeline(timeline)
            assert timeline[-1]["type"] == "job.failed"
            assert timeline[-1]["data"]["error"]["error_type"] == "job_lost"
            await check_deliveries(second, receiver, webhooks, [lost, kept])


async def test_running_jobs_are_recorded_anew_after_a_flush(
    fleet: Fleet, receiver: Receiver, tmp_path: Path
) -> None:
    with Valkey(tmp_path / "redis", append_only=True) as server:
        async with AnalysisApi(speed=4) as api:
            await start_three(fleet, api, server)
            jobs = await fleet.create(3)
            server.execute("FLUSHALL")

            async def are_back() -> bool:
                return all([await fleet.gateways[0].timeline(job_id) for job_id in jobs])

            await eventually("the jobs are recorded anew", are_back)
            for job_id in jobs:
                timeline = await fleet.gateways[0].finish(job_id)
                check_timeline(timeline)
                assert timeline[-1]["type"] == "job.completed"
