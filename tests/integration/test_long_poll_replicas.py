"""A client waits on one replica for what another sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.core.job import Observation, State
from tests.support.inside import GatewayInside, StatusUpstream
from tests.support.system import Answer, eventually
from tests.support.valkey import Valkey

# The gateways look when the test says so.
WATCH = {"source": "poll", "poll": {"min": "1h", "max": "1h"}}
WAIT = {"Prefer": "wait=30"}


@pytest.fixture
async def upstream() -> AsyncIterator[StatusUpstream]:
    async with StatusUpstream() as server:
        yield server


def settings(server: Valkey, **upstream: Any) -> dict[str, Any]:
    return {
        "store": {"kind": "redis"},
        "environment": {"REDIS_URL": server.url},
        "redis": {"url": "${REDIS_URL}", "cache_timeout": "1s"},
        "upstream": upstream,
        "jobs": {"watch": WATCH},
    }


@pytest.fixture
async def replicas(
    tmp_path: Path, valkey: Valkey, upstream: StatusUpstream
) -> AsyncIterator[Sequence[GatewayInside]]:
    async with (
        GatewayInside(_folder(tmp_path, 1), upstream.url, **settings(valkey, shared=True)) as one,
        GatewayInside(_folder(tmp_path, 2), upstream.url, **settings(valkey, shared=True)) as two,
    ):
        yield one, two


def _folder(path: Path, number: int) -> Path:
    folder = path / str(number)
    folder.mkdir()
    return folder


async def poll(gateway: GatewayInside, job_id: str, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.request("GET", f"/api/v1/analysis/{job_id}/status", headers=fields)


async def known(gateways: Sequence[GatewayInside], upstream: StatusUpstream) -> str:
    """A job that runs, of which all replicas know the same."""
    one, _ = gateways
    job_id = await one.create()
    upstream.put(job_id, "Transcribing", 40)
    await look(one, job_id)

    async def all_know() -> bool:
        answers = [await poll(gateway, job_id) for gateway in gateways]
        jobs = [gateway.gateway.behind.tracker.active(job_id) for gateway in gateways]
        shown = {answer.document["status"] for answer in answers}
        return shown == {"Transcribing"} and len({job and job.version for job in jobs}) == 1

    await eventually("both replicas know the job as it stands", all_know)
    return job_id


async def look(gateway: GatewayInside, job_id: str) -> None:
    """A replica's own look at a job."""
    behind = gateway.gateway.behind
    job = behind.tracker.active(job_id)
    assert job is not None
    seen = await behind.observer.status(job)
    assert seen is not None
    await behind.tracker.observe(seen, "poll")


async def waiters(gateway: GatewayInside, job_id: str, count: int) -> list[asyncio.Task[Answer]]:
    tag = (await poll(gateway, job_id)).headers["ETag"]
    headers = {"If_None_Match": tag, **WAIT}
    tasks = [asyncio.create_task(poll(gateway, job_id, **headers)) for _ in range(count)]

    async def all_wait() -> bool:
        return gateway.gateway.front.waiters._count == count

    await eventually("they wait", all_wait)
    return tasks


async def test_who_waits_on_another_replica_is_told_what_the_first_saw(
    replicas: Sequence[GatewayInside], upstream: StatusUpstream
) -> None:
    one, two = replicas
    job_id = await known(replicas, upstream)
    clients = [*await waiters(one, job_id, 20), *await waiters(two, job_id, 20)]
    asked = upstream.asked["status"]

    upstream.put(job_id, "Completed", 100)
    await look(one, job_id)
    answers = await asyncio.gather(*clients)

    assert {answer.document["status"] for answer in answers} == {"Completed"}
    # The look itself; the other replica finds what it showed in Redis, or asks once.
    assert asked + 1 <= upstream.asked["status"] <= asked + 2


async def test_a_poll_on_another_replica_shows_what_its_timeline_shows(
    replicas: Sequence[GatewayInside], upstream: StatusUpstream
) -> None:
    one, two = replicas
    job_id = await known(replicas, upstream)
    assert (await poll(two, job_id)).document["status"] == "Transcribing"  # in its memory

    upstream.put(job_id, "Completed", 100)
    await look(one, job_id)

    assert await two.ended(job_id)
    assert (await poll(two, job_id)).document["status"] == "Completed"


async def test_a_sidecar_tells_of_its_neighbours_job_without_asking_its_own_upstream(
    tmp_path: Path, valkey: Valkey, upstream: StatusUpstream
) -> None:
    async with StatusUpstream() as other:
        given = [settings(valkey, shared=False, instance=name) for name in ("one", "two")]
        async with (
            GatewayInside(_folder(tmp_path, 1), upstream.url, **given[0]) as one,
            GatewayInside(_folder(tmp_path, 2), other.url, **given[1]) as two,
        ):
            job_id = await known((one, two), upstream)
            asked = other.asked["status"]
            clients = await waiters(two, job_id, 20)

            upstream.put(job_id, "Completed", 100)
            inside = one.gateway
            seen = Observation(job_id, inside.front.now(), state=State.COMPLETED, results={})
            await inside.behind.tracker.observe(seen, "stream")
            answers = await asyncio.gather(*clients)

            assert {answer.document["status"] for answer in answers} == {"Completed"}
            assert other.asked["status"] == asked
