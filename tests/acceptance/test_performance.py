"""Performance by counts, ratios and memory: machines differ, these do not."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import psutil
import pytest

from tests.acceptance.conftest import Launch
from tests.support.receiver import Receiver
from tests.support.system import (
    KEY,
    OTHER_KEY,
    READ_KEY,
    TERMINAL,
    VIDEO,
    AnalysisApi,
    GatewayProcess,
    eventually,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

STAGES = [
    "Queued",
    "Downloading",
    "Generating waveform",
    "Transcribing",
    "Fetching chat",
    "Analyzing",
    "Finding highlights",
    "Completed",
]


async def resident_bytes(gateway: GatewayProcess) -> int:
    return await asyncio.to_thread(lambda: psutil.Process(gateway.pid).memory_info().rss)


async def test_twelve_concurrent_jobs_all_complete_with_gapless_events(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    await gateway.register(receiver.url, ["job.started", "job.completed"])
    jobs = await asyncio.gather(*(gateway.create() for _ in range(12)))
    timelines = await asyncio.gather(*(gateway.finish(job_id) for job_id in jobs))
    await receiver.wait_for(24)

    assert len(set(jobs)) == 12
    for timeline in timelines:
        types = [event["type"] for event in timeline]
        assert [event["sequence"] for event in timeline] == list(range(1, len(timeline) + 1))
        assert types[0] == "job.started"
        assert [kind for kind in types if kind in TERMINAL] == [types[-1]] == ["job.completed"]
    heard = Counter((r.envelope["data"]["job_id"], r.event) for r in receiver.requests)
    wanted = ("job.started", "job.completed")
    assert heard == dict.fromkeys([(job_id, kind) for job_id in jobs for kind in wanted], 1)


async def test_fifty_streams_of_a_job_cost_the_upstream_one(launch: Launch) -> None:
    async with AnalysisApi(speed=4) as api:
        gateway = await launch(api.url)
        job_id = await gateway.create()

        streams = await asyncio.gather(*(gateway.stream(job_id) for _ in range(50)))

        for events in streams:
            names = [event["event"] for event in events]
            stages = [e["progress"]["current_stage"] for e in events if "progress" in e]
            places = [STAGES.index(stage) for stage in stages]
            assert names[0] == "connected"
            assert names[-1] == "stream_ended"
            assert events[-1]["final_status"] == "Completed"
            assert places == sorted(places)
            assert places[-1] == len(STAGES) - 1
            assert len(set(places)) >= 4  # the upstream itself skips a stage now and then
        assert (await api.stats())["max_open_streams"] == 1

        async def closed() -> bool:
            return bool((await api.stats())["open_streams"] == 0)

        await eventually("no stream to the upstream is left open", closed)
        assert (await gateway.metrics())["gateway_http_stream_duration_seconds_count"] == 50


async def test_polls_of_a_job_are_answered_from_memory(launch: Launch) -> None:
    async with AnalysisApi(speed=0.5) as api:
        gateway = await launch(api.url, jobs={"watch": {"poll": {"max": "30s"}}})
        job_id = await gateway.create()
        before = (await api.asked()).get("status", 0)

        answers = [
            await gateway.request("GET", f"/api/v1/analysis/{job_id}/status") for _ in range(200)
        ]

        asked = (await api.asked())["status"] - before
        metrics = await gateway.metrics()
        assert {answer.status for answer in answers} == {200}
        assert {answer.document["job_id"] for answer in answers} == {job_id}
        assert asked <= 20
        assert metrics["gateway_cache_requests_total{result=hit}"] >= 180


async def test_poll_never_lags_behind_an_event(gateway: GatewayProcess) -> None:
    job_id = await gateway.create()
    while not await gateway.ended(job_id):
        await gateway.status(job_id)

    for key in (KEY, READ_KEY):
        answer = await gateway.request("GET", f"/api/v1/analysis/{job_id}/status", key=key)
        assert answer.document["status"] == "Completed"


@pytest.mark.timeout(90)
async def test_two_thousand_requests_leave_no_memory_behind(
    gateway: GatewayProcess, upstream: AnalysisApi
) -> None:
    job_id = await gateway.create()
    await gateway.finish(job_id)
    paths = [
        f"/api/v1/analysis/{job_id}/status",
        f"/api/v1/analysis/{job_id}",
        "/api/v1/webhooks",
        "/api/v1/jobs",
        "/api/v1/jobs/history",
        "/nothing/here",
        "/api/v1/analysis/unknown/status",
        f"/api/v1/jobs/{job_id}/events",
    ]
    answered: Counter[int] = Counter()

    async def ask(count: int) -> None:
        for number in range(count):
            path = paths[number % len(paths)] + f"?n={number}" * (number % len(paths) == 5)
            answered[(await gateway.request("GET", path)).status] += 1

    async def load(count: int) -> None:
        await asyncio.gather(*(ask(count // 20) for _ in range(20)))

    await load(1000)  # until every cache and pool has its size
    before = await resident_bytes(gateway)
    await load(2000)
    grown = await resident_bytes(gateway) - before

    assert answered.keys() == {200, 404}
    assert answered.total() == 3000
    assert grown < 8 * 1024**2  # one leaked kilobyte a request would be 2 MiB, an answer each 10


async def test_history_is_read_whole_without_asking_the_upstream(
    gateway: GatewayProcess, upstream: AnalysisApi
) -> None:
    jobs = await asyncio.gather(*(gateway.create() for _ in range(15)))
    for job_id in jobs:
        await gateway.finish(job_id)
    before = await upstream.asked()

    async def read() -> list[Any]:
        found: list[Any] = []
        query = ""
        while True:
            path = f"/api/v1/jobs/history?limit=4{query}"
            page = (await gateway.request("GET", path)).document
            assert len(page["jobs"]) <= 4
            found += page["jobs"]
            if page["next_cursor"] is None:
                return found
            query = f"&cursor={page['next_cursor']}"

    readings = await asyncio.gather(*(read() for _ in range(10)))

    assert all(reading == readings[0] for reading in readings)
    ids = [job["job_id"] for job in readings[0]]
    assert len(ids) == len(set(ids))
    assert set(jobs) <= set(ids)
    times = [job["created_at"] for job in readings[0]]
    assert times == sorted(times, reverse=True)
    assert await upstream.asked() == before


async def test_status_answers_within_a_second_while_the_upstream_blocks_on_a_creation(
    launch: Launch,
) -> None:
    async with AnalysisApi(speed=0.2, create_seconds=3) as api:
        gateway = await launch(api.url)
        known = await gateway.create()
        await gateway.status(known)
        creation = asyncio.create_task(gateway.create(VIDEO))

        async def blocked() -> bool:
            try:
                async with asyncio.timeout(0.3):
                    await api.stats()
            except TimeoutError:
                return True
            return False

        await eventually("the upstream answers nobody", blocked)
        async with asyncio.timeout(1):
            status = await gateway.status(known)

        assert not creation.done()
        assert status["job_id"] == known
        assert await creation != known


async def test_history_comes_from_memory_until_one_of_the_owners_jobs_changes(
    gateway: GatewayProcess,
) -> None:
    await gateway.finish(await gateway.create())
    path = "/api/v1/jobs/history?limit=5"

    async def how(key: str = KEY) -> str:
        return (await gateway.request("GET", path, key=key)).headers["Cache-Status"]

    async def settled() -> bool:
        return (await how()).startswith("gateway; hit")

    await eventually("a page comes from memory", settled)
    job_id = await gateway.create()
    page = await gateway.request("GET", path)
    assert page.document["jobs"][0]["job_id"] == job_id
    await gateway.finish(job_id)
    (newest, *_) = (await gateway.request("GET", path)).document["jobs"]
    assert (newest["job_id"], newest["status"]) == (job_id, "completed")
    assert (await gateway.request("GET", path, key=OTHER_KEY)).document["jobs"] == []
