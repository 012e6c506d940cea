"""A gateway of two workers before one upstream: they die and are renewed, nothing is lost."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Launch
from tests.acceptance.test_crash import check_deliveries, check_timeline
from tests.acceptance.test_fan_out import check
from tests.support import worker
from tests.support.receiver import Receiver
from tests.support.system import VIDEO, AnalysisApi
from tests.support.valkey import Valkey
from tests.support.worker import all_serve, kill, worker_pids

pytestmark = pytest.mark.asyncio(loop_scope="module")

RANDOM = random.Random(20261125)
SETTINGS: dict[str, Any] = {
    "jobs": {"watch": {"lease": "1.5s"}, "admission": {"max_concurrent": 12}},
    "webhooks": {
        "timeout": "500ms",
        "max_timeout": "500ms",
        "per_endpoint": 2,
        "lease_margin": "6s",
        "max_retries": 10,
        "retry_delays": ["100ms"] * 2 + ["500ms"] * 8,
    },
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey", append_only=True) as valkey:
        yield valkey


async def test_workers_killed_and_renewed_lose_no_event(
    launch: Launch, receiver: Receiver, server: Valkey
) -> None:
    async with AnalysisApi(speed=4) as api:
        gateway = await launch(api.url, **worker.settings(server, **SETTINGS))
        webhooks = {"/hook": (await gateway.register(receiver.url_of("/hook")))["id"]}
        jobs: list[str] = []
        for number in range(2):
            before = len(receiver.requests)
            jobs += [await gateway.create() for _ in range(3)]
            await receiver.wait_for(before + RANDOM.randint(1, 6))
            pids = worker_pids(gateway)
            kill(pids[number], signal.SIGKILL)
            await all_serve(gateway, besides=[pids[number]])
        pids = worker_pids(gateway)
        gateway.signal(signal.SIGHUP)
        await all_serve(gateway, besides=pids)

        for job_id in jobs:
            check_timeline(await gateway.finish(job_id))
        await check_deliveries(gateway, receiver, webhooks, jobs)


async def test_workers_share_the_places_for_jobs(launch: Launch, server: Valkey) -> None:
    async with AnalysisApi(speed=0.2) as api:
        gateway = await launch(api.url, **worker.settings(server, **SETTINGS))

        answers = await asyncio.gather(
            *(gateway.request("POST", "/api/v1/analysis", {"url": VIDEO}) for _ in range(40))
        )

        assert Counter(answer.status for answer in answers) == {200: 12, 503: 28}


async def test_clients_of_every_worker_see_a_job_live(launch: Launch, server: Valkey) -> None:
    async with AnalysisApi(speed=10) as api:
        gateway = await launch(api.url, **worker.settings(server, **SETTINGS))
        job_id = await gateway.create()

        streams = await asyncio.gather(*(gateway.stream(job_id) for _ in range(24)))

        for events in streams:
            check(events)
        assert (await api.stats())["max_open_streams"] <= worker.WORKERS
