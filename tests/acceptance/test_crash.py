"""kill -9 at any point loses no event: what was promised before is delivered after the restart."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest

from tests.acceptance.conftest import Launch
from tests.support.receiver import Hang, Received, Receiver, Reply
from tests.support.system import TERMINAL, AnalysisApi, GatewayProcess, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Enough retries that a receiver's absence during a test exhausts none.
PATIENT = {"webhooks": {"max_retries": 10, "retry_delays": ["100ms"] * 2 + ["500ms"] * 8}}
RANDOM = random.Random(20260101)
RANDOM_POINTS = sorted(RANDOM.sample(range(3, 60), 4))


def by_event(requests: list[Received]) -> dict[str, list[Received]]:
    found = defaultdict(list)
    for request in requests:
        found[request.id].append(request)
    return found


def check_timeline(timeline: list[Any]) -> None:
    """Gap-free from 1, each event once, started first, exactly one end and that last."""
    assert [event["sequence"] for event in timeline] == list(range(1, len(timeline) + 1))
    assert len({event["id"] for event in timeline}) == len(timeline)
    types = [event["type"] for event in timeline]
    assert types[0] == "job.started"
    assert [kind for kind in types if kind in TERMINAL] == [types[-1]]


async def check_deliveries(
    gateway: GatewayProcess, receiver: Receiver, webhooks: dict[str, str], jobs: list[str]
) -> int:
    """Every webhook has every event of every job, as it was recorded; how many came twice.

    `webhooks` are ids by the receiver's path. Progress may be replaced by newer progress or by the
    job's end, and then the log says so.
    """

    async def settled() -> bool:
        waiting = [
            line
            for webhook_id in webhooks.values()
            for line in await gateway.deliveries(webhook_id)
            if line["status"] in ("pending", "in_flight", "retrying")
        ]
        return not waiting

    await eventually("every delivery is settled", settled)
    twice = 0
    for path, webhook_id in webhooks.items():
        log = {line["event_id"]: line for line in await gateway.deliveries(webhook_id)}
        arrived = by_event(receiver.at(path))
        for job_id in jobs:
            timeline = await gateway.timeline(job_id)
            check_timeline(timeline)
            for event in timeline:
                came = arrived.pop(event["id"], [])
                assert all(request.envelope == event for request in came)
                assert len({request.body for request in came}) <= 1
                twice += max(0, len(came) - 1)
                status = log.pop(event["id"])["status"]
                if event["type"] == "job.progress" and not came:
                    assert status == "superseded"
                else:
                    assert came, (path, event["type"], status)
                    # Progress has two tries, and one that a kill cut off counts.
                    given_up = {"exhausted"} if event["type"] == "job.progress" else set()
                    assert status in {"succeeded", "superseded"} | given_up
        assert not arrived  # nothing was invented
        assert not log
    return twice


async def register(gateway: GatewayProcess, receiver: Receiver) -> dict[str, str]:
    paths = ("/first", "/second")
    return {path: (await gateway.register(receiver.url_of(path)))["id"] for path in paths}


async def restart(gateway: GatewayProcess) -> None:
    await gateway.kill()
    await gateway.start()


async def test_killed_right_after_the_answer_to_a_creation(
    launch: Launch, upstream: AnalysisApi, receiver: Receiver
) -> None:
    gateway = await launch(upstream.url, **PATIENT)
    webhooks = await register(gateway, receiver)
    jobs = []
    for _ in range(3):
        jobs.append(await gateway.create())
        await restart(gateway)
    for job_id in jobs:
        timeline = await gateway.finish(job_id)
        assert timeline[-1]["type"] == "job.completed"

    await check_deliveries(gateway, receiver, webhooks, jobs)


async def test_killed_between_the_first_events(launch: Launch, receiver: Receiver) -> None:
    async with AnalysisApi(speed=4) as api:
        gateway = await launch(api.url, **PATIENT)
        webhooks = await register(gateway, receiver)
        job_id = await gateway.create()
        for seen in (1, 3, 6):

            async def so_far(seen: int = seen) -> bool:
                return len(await gateway.timeline(job_id)) >= seen

            await eventually(f"{seen} events are recorded", so_far)
            before = await gateway.timeline(job_id)
            assert before[-1]["type"] not in TERMINAL
            await restart(gateway)
            assert (await gateway.timeline(job_id))[: len(before)] == before
        await gateway.finish(job_id)

        await check_deliveries(gateway, receiver, webhooks, [job_id])


async def test_killed_while_a_delivery_is_in_flight(
    launch: Launch, upstream: AnalysisApi, receiver: Receiver
) -> None:
    gateway = await launch(upstream.url, **PATIENT)
    webhooks = await register(gateway, receiver)
    receiver.script(Hang(), path="/first")
    job_id = await gateway.create()
    await receiver.wait_until(lambda: len(receiver.at("/first")) == 1)
    hung = receiver.at("/first")[0]
    await restart(gateway)
    receiver.release()
    await gateway.finish(job_id)

    twice = await check_deliveries(gateway, receiver, webhooks, [job_id])

    # The receiver had it, but nobody could know: it comes again, the same.
    again = [request for request in receiver.at("/first") if request.id == hung.id]
    assert len(again) == 2
    assert twice >= 1


async def test_killed_after_the_end_is_recorded_while_the_receiver_is_down(
    launch: Launch, upstream: AnalysisApi
) -> None:
    down = Receiver()
    async with down:
        pass  # its port is known and nobody listens there
    gateway = await launch(upstream.url, **PATIENT)
    webhooks = await register(gateway, down)
    job_id = await gateway.create()
    await gateway.finish(job_id)
    await gateway.kill()
    assert down.requests == []
    async with down:
        await gateway.start()
        await check_deliveries(gateway, down, webhooks, [job_id])
        assert {request.event for request in down.requests} >= {"job.started", "job.completed"}


@pytest.mark.parametrize("point", RANDOM_POINTS)
async def test_killed_at_a_random_delivery(
    launch: Launch, upstream: AnalysisApi, receiver: Receiver, point: int
) -> None:
    gateway = await launch(upstream.url, **PATIENT)
    webhooks = await register(gateway, receiver)
    receiver.script(*[Reply(500), Reply(), Reply()] * 5, path="/second")
    jobs = [await gateway.create() for _ in range(3)]
    await receiver.wait_for(point)
    await restart(gateway)
    for job_id in jobs:
        await gateway.finish(job_id)

    await check_deliveries(gateway, receiver, webhooks, jobs)


async def test_killed_while_the_upstream_forgets_the_job(
    launch: Launch, receiver: Receiver
) -> None:
    async with AnalysisApi(speed=1) as api:
        gateway = await launch(api.url, **PATIENT)
        webhooks = await register(gateway, receiver)
        job_id = await gateway.create()
        await receiver.wait_for(2)
        await gateway.kill()
        await api.stop()
        await api.start()
        await gateway.start()
        timeline = await gateway.finish(job_id)

        assert timeline[-1]["type"] == "job.failed"
        assert timeline[-1]["data"]["error"]["error_type"] == "job_lost"
        await check_deliveries(gateway, receiver, webhooks, [job_id])
