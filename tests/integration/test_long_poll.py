"""Polls that are absorbed, and polls that wait; what the upstream is asked is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.job import Observation, State
from tests.docs.markdown import blocks
from tests.support.inside import GatewayInside, StatusUpstream
from tests.support.system import KEY, OTHER_KEY, ROOT, Answer, eventually

# The gateway looks when the test says so.
RARELY = {"watch": {"source": "poll", "poll": {"min": "1h", "max": "1h"}}}
WAIT = {"Prefer": "wait=30"}


@pytest.fixture
async def upstream() -> AsyncIterator[StatusUpstream]:
    async with StatusUpstream() as server:
        yield server


@pytest.fixture
async def gateway(tmp_path: Path, upstream: StatusUpstream) -> AsyncIterator[GatewayInside]:
    async with GatewayInside(tmp_path, upstream.url, jobs=RARELY) as inside:
        yield inside


async def poll(gateway: GatewayInside, job_id: str, key: str = KEY, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await gateway.request(
        "GET", f"/api/v1/analysis/{job_id}/status", key=key, headers=fields
    )


def waiting(gateway: GatewayInside) -> int:
    return gateway.gateway.front.waiters._count


async def all_wait(gateway: GatewayInside, count: int) -> None:
    async def they_do() -> bool:
        return waiting(gateway) == count

    await eventually(f"{count} clients wait", they_do)


async def settled(gateway: GatewayInside, upstream: StatusUpstream) -> str:
    """A job that runs, whose status is known and that nothing asks for any more."""
    job_id = await gateway.create()

    async def was_looked_at() -> bool:
        return upstream.asked["status"] == 1 and (await poll(gateway, job_id)).status == 200

    await eventually("the gateway has asked for it", was_looked_at)
    upstream.put(job_id, "Transcribing", 40)
    await look(gateway, job_id)
    assert (await poll(gateway, job_id)).document["status"] == "Transcribing"
    return job_id


async def look(gateway: GatewayInside, job_id: str) -> None:
    """The gateway's own look at a job."""
    behind = gateway.gateway.behind
    job = behind.tracker.active(job_id)
    assert job is not None
    seen = await behind.observer.status(job)
    assert seen is not None
    await behind.tracker.observe(seen, "poll")


def looks(metrics: dict[str, float]) -> float:
    """How often the watcher has asked."""
    return sum(
        count
        for name, count in metrics.items()
        if name.startswith("gateway_observations_total{") and "source=poll" in name
    )


async def test_polls_are_answered_with_what_the_watcher_saw(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await settled(gateway, upstream)
    asked = upstream.asked["status"]

    accepted = ("*/*", "application/json", "application/json, text/plain, */*")
    answers = [await poll(gateway, job_id, Accept=accept) for accept in accepted]
    again = await poll(gateway, job_id, If_None_Match=answers[0].headers["ETag"])

    for answer in answers:
        assert answer.headers["Cache-Status"].startswith("gateway; hit")
        assert answer.document["status"] == "Transcribing"
    assert (again.status, again.body, "Age" in again.headers) == (304, b"", True)
    assert upstream.asked["status"] == asked


async def test_a_wait_ends_with_the_change_and_without_a_further_question(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await settled(gateway, upstream)
    keys = [KEY, OTHER_KEY]
    clients = [
        asyncio.create_task(poll(gateway, job_id, keys[number % 2], **WAIT))
        for number in range(300)
    ]
    await all_wait(gateway, 300)
    asked = upstream.asked["status"]

    upstream.put(job_id, "Analyzing", 70)
    await look(gateway, job_id)
    answers = await asyncio.gather(*clients)

    assert {answer.document["status"] for answer in answers} == {"Analyzing"}
    assert {answer.headers["Preference-Applied"] for answer in answers} == {"wait=30"}
    assert upstream.asked["status"] == asked + 1  # the look itself
    assert (await gateway.metrics())["gateway_waits_total{result=changed}"] == 300


async def test_a_change_seen_elsewhere_than_in_the_status_costs_one_question(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await settled(gateway, upstream)
    clients = [asyncio.create_task(poll(gateway, job_id, **WAIT)) for _ in range(100)]
    await all_wait(gateway, 100)
    asked = upstream.asked["status"]

    upstream.put(job_id, "Completed", 100)
    tracker = gateway.gateway.behind.tracker
    seen = Observation(job_id, gateway.gateway.front.now(), state=State.COMPLETED, results={})
    await tracker.observe(seen, "stream")
    answers = await asyncio.gather(*clients)

    assert {answer.document["status"] for answer in answers} == {"Completed"}
    assert upstream.asked["status"] == asked + 1


async def test_who_waits_is_told_even_what_may_not_be_kept(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await settled(gateway, upstream)
    clients = [asyncio.create_task(poll(gateway, job_id, **WAIT)) for _ in range(50)]
    await all_wait(gateway, 50)
    asked = upstream.asked["status"]

    del upstream.stages[job_id]  # restarted: it knows nothing of the job
    await gateway.gateway.behind.tracker.lose(job_id)
    answers = await asyncio.gather(*clients)

    assert {answer.status for answer in answers} == {404}
    assert upstream.asked["status"] == asked + 1


async def test_an_upstream_that_fails_for_a_moment_is_asked_by_one(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await settled(gateway, upstream)
    clients = [asyncio.create_task(poll(gateway, job_id, **WAIT)) for _ in range(50)]
    await all_wait(gateway, 50)
    asked = upstream.asked["status"]

    upstream.put(job_id, "Completed", 100)
    upstream.code = 503
    tracker = gateway.gateway.behind.tracker
    seen = Observation(job_id, gateway.gateway.front.now(), state=State.COMPLETED, results={})
    await tracker.observe(seen, "stream")

    async def was_asked() -> bool:
        return upstream.asked["status"] == asked + 1

    await eventually("the upstream was asked", was_asked)
    upstream.code = 200
    answers = await asyncio.gather(*clients)

    assert {answer.document["status"] for answer in answers} == {"Completed"}
    assert upstream.asked["status"] == asked + 2


async def test_a_client_is_not_told_what_it_has(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await settled(gateway, upstream)
    tag = (await poll(gateway, job_id)).headers["ETag"]

    unchanged = await poll(gateway, job_id, If_None_Match=tag, Prefer="wait=1")
    assert (unchanged.status, unchanged.headers["Preference-Applied"]) == (304, "wait=1")
    client = asyncio.create_task(poll(gateway, job_id, If_None_Match=tag, **WAIT))
    await all_wait(gateway, 1)
    upstream.put(job_id, "Analyzing", 70)
    await look(gateway, job_id)
    changed = await client
    at_once = await poll(gateway, job_id, If_None_Match=tag, **WAIT)

    assert (changed.status, changed.document["status"]) == (200, "Analyzing")
    assert (at_once.status, at_once.headers["ETag"]) == (200, changed.headers["ETag"])


async def test_an_ended_or_unknown_job_is_answered_at_once(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await settled(gateway, upstream)
    upstream.put(job_id, "Completed", 100)
    await look(gateway, job_id)

    ended = await poll(gateway, job_id, **WAIT)
    unknown = await poll(gateway, "nobody", **WAIT)

    assert (ended.status, ended.document["status"]) == (200, "Completed")
    assert unknown.status == 404
    assert upstream.statuses[-1].headers["Prefer"] == "wait=30"
    assert "Preference-Applied" not in unknown.headers


async def test_the_upstream_does_not_hear_of_a_wait(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await settled(gateway, upstream)
    await poll(gateway, job_id, Prefer="respond-async, wait=0", Cache_Control="no-cache")

    assert upstream.statuses[-1].headers["Prefer"] == "respond-async"


@pytest.mark.parametrize("version", ["1.1", "1.0"], ids=["fast lane", "full lane"])
async def test_a_client_that_leaves_waits_no_more(
    gateway: GatewayInside, upstream: StatusUpstream, version: str
) -> None:
    job_id = await settled(gateway, upstream)
    port = int(gateway.public.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [
        f"GET /api/v1/analysis/{job_id}/status HTTP/{version}",
        "Host: localhost",
        f"X-API-Key: {KEY}",
        "Prefer: wait=30",
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    await all_wait(gateway, 1)

    writer.close()
    await all_wait(gateway, 0)

    assert (await gateway.metrics())["gateway_waits_total{result=left}"] == 1


async def test_a_drain_ends_waits_with_the_current_status(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await settled(gateway, upstream)
    clients = [asyncio.create_task(poll(gateway, job_id, **WAIT)) for _ in range(20)]
    await all_wait(gateway, 20)

    await gateway.request_drain()
    answers = await asyncio.gather(*clients)

    assert {answer.document["status"] for answer in answers} == {"Transcribing"}
    assert {answer.headers["Connection"] for answer in answers} == {"close"}


async def test_too_many_are_answered_at_once_and_not_told_that_they_waited(
    tmp_path: Path, upstream: StatusUpstream
) -> None:
    policies = {"cache": {"watched": {"max_waiters": 3, "max_waiters_per_key": 2}}}
    async with GatewayInside(tmp_path, upstream.url, jobs=RARELY, policies=policies) as gateway:
        job_id = await settled(gateway, upstream)
        clients = [asyncio.create_task(poll(gateway, job_id, **WAIT)) for _ in range(2)]
        await all_wait(gateway, 2)

        third = await poll(gateway, job_id, **WAIT)
        other = asyncio.create_task(poll(gateway, job_id, OTHER_KEY, **WAIT))
        await all_wait(gateway, 3)
        fourth = await poll(gateway, job_id, OTHER_KEY, **WAIT)
        upstream.put(job_id, "Analyzing", 70)
        await look(gateway, job_id)

        assert [each.document["status"] for each in (third, fourth)] == ["Transcribing"] * 2
        assert "Preference-Applied" not in {*third.headers, *fourth.headers}
        assert {each.document["status"] for each in await asyncio.gather(*clients, other)} == {
            "Analyzing"
        }


async def test_a_wait_is_one_request_of_the_rate_limit_and_no_slow_one(
    tmp_path: Path, upstream: StatusUpstream
) -> None:
    limit = {"per-key": {"limit": 100, "window": "1h", "by": ["key"], "routes": ["job-status"]}}
    policies = {"rate_limits": {"limits": limit}}
    async with GatewayInside(tmp_path, upstream.url, jobs=RARELY, policies=policies) as gateway:
        job_id = await settled(gateway, upstream)
        first = await poll(gateway, job_id)
        await poll(gateway, job_id, Prefer="wait=1", If_None_Match="*")
        last = await poll(gateway, job_id)

        before, after = (
            int(answer.headers["RateLimit"].partition(";r=")[2].partition(";")[0])
            for answer in (first, last)
        )
        assert before - after == 2
        (line,) = [line for line in gateway.lines if "waited_seconds" in line]
        assert line["waited_seconds"] >= 1
        labels = "le=0.5,method=GET,route=job-status,status=304"
        metrics = await gateway.metrics()
        assert metrics[f"gateway_http_request_duration_seconds_bucket{{{labels}}}"] == 1


async def test_the_client_of_the_guide_sees_every_stage(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    page = blocks((ROOT / "docs" / "jobs.md").read_text(), "python")
    [sample] = (text for block in page if "Prefer" in (text := block.text))
    names: dict[str, Any] = {}
    exec(sample, names)  # noqa: S102 - the page's own
    job_id = await settled(gateway, upstream)
    url = f"{gateway.public}/api/v1/analysis/{job_id}/status"
    seen: list[str] = []

    def client() -> None:
        shown = names["follow"](url, {"X-API-Key": KEY})
        seen.extend(status["status"] for status in shown)

    following = asyncio.create_task(asyncio.to_thread(client))
    for stage, percentage in (("Analyzing", 70), ("Completed", 100)):

        async def knows_the_last(count: int = len(seen) + 1) -> bool:
            return len(seen) == count and waiting(gateway) == 1

        await eventually("the client waits for the next", knows_the_last)
        upstream.put(job_id, stage, percentage)
        await look(gateway, job_id)
    await following

    assert seen == ["Transcribing", "Analyzing", "Completed"]


async def test_ten_jobs_and_five_hundred_clients_are_one_watcher_to_the_upstream(
    tmp_path: Path, upstream: StatusUpstream
) -> None:
    watch = {"source": "poll", "poll": {"min": "50ms", "max": "100ms"}}
    async with GatewayInside(tmp_path, upstream.url, jobs={"watch": watch}) as gateway:
        jobs = await asyncio.gather(*(gateway.create() for _ in range(10)))
        seen: dict[str, set[str]] = {job_id: set() for job_id in jobs}
        polls = 0

        async def are_known() -> bool:
            return looks(await gateway.metrics()) >= len(jobs)

        await eventually("the watcher has seen each job", are_known)

        async def follow(number: int) -> None:
            nonlocal polls
            job_id = jobs[number % 10]
            headers: dict[str, Any] = {}
            stage = ""
            while stage != "Completed":
                answer = await poll(gateway, job_id, **headers)
                polls += 1
                if answer.status == 200:
                    stage = answer.document["status"]
                    seen[job_id].add(stage)
                if number % 2:
                    headers = {"If_None_Match": answer.headers["ETag"], **WAIT}
                else:
                    await asyncio.sleep(0.05)

        clients = [asyncio.create_task(follow(number)) for number in range(500)]
        for stage, percentage in (("Transcribing", 40), ("Analyzing", 70), ("Completed", 100)):
            for job_id in jobs:
                upstream.put(job_id, stage, percentage)

            async def is_seen(stage: str = stage, until: int = polls + 500) -> bool:
                is_end = stage == "Completed"
                return all(stage in of for of in seen.values()) and (is_end or polls >= until)

            await eventually(f"clients see {stage}", is_seen)
        await asyncio.gather(*clients)

        assert polls > 1500
        # One question a job when it was created, and what the watcher asks.
        assert upstream.asked["status"] == looks(await gateway.metrics()) + len(jobs)
