"""An upstream that misbehaves: the job is followed to its one end, and nonsense is never told."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.support.receiver import Receiver
from tests.support.system import TERMINAL, VIDEO, AnalysisApi, GatewayProcess, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

OBSERVED = ["status", "details", "stream", "list"]
# A job that the upstream denies for a moment is not lost yet.
SETTINGS: dict[str, Any] = {"jobs": {"watch": {"lost_after": "30s"}}}
REFUSED = "gateway_observations_refused_total"
ERRORS = "gateway_upstream_errors_total"
# Fault -> the counter that must show it; None: the answer is usable, once corrected.
COUNTED = {
    "status_500": REFUSED,
    "html": REFUSED,
    "half_json": REFUSED,
    "missing_fields": REFUSED,
    "nan": REFUSED,
    "percentage_250": REFUSED,
    "reset": ERRORS,
    "hang": None,
    "status_404": None,
}
CREATIONS = ("html", "half_json", "missing_fields")


def check(timeline: list[Any]) -> None:
    types = [event["type"] for event in timeline]
    assert [event["sequence"] for event in timeline] == list(range(1, len(timeline) + 1))
    assert [kind for kind in types if kind in TERMINAL] == [types[-1]] == ["job.completed"]
    for event in timeline:
        progress = event["data"]["progress"]
        assert progress is None or 0 <= progress <= 100
    assert timeline[-1]["data"]["progress"] == 100


@pytest.mark.parametrize("mode", COUNTED)
async def test_job_is_followed_to_its_end_through_a_fault(
    gateway: GatewayProcess, upstream: AnalysisApi, receiver: Receiver, mode: str
) -> None:
    await gateway.register(receiver.url, ["job.started", "job.completed", "job.failed"])
    series = COUNTED[mode]
    before = (await gateway.metrics()).get(series or "", 0.0)
    asked = await upstream.asked()
    # A question that hangs is given up after ten seconds: the watcher's first is enough, and the
    # one by which the cache is filled before it.
    await upstream.fault(mode, routes=OBSERVED, **({"count": 2} if mode == "hang" else {}))
    job_id = await gateway.create()

    async def struck() -> bool:
        now = await upstream.asked()
        looks = sum(now.get(route, 0) - asked.get(route, 0) for route in OBSERVED)
        told = series is None or (await gateway.metrics()).get(series, 0.0) >= before + 2
        return looks >= 3 and told

    await eventually(f"{mode} strikes and is counted", struck)
    await upstream.fault(None)
    timeline = await gateway.finish(job_id)
    await receiver.wait_for(2)

    check(timeline)
    assert receiver.events == ["job.started", "job.completed"]
    assert (await gateway.status(job_id))["status"] == "Completed"
    assert (await gateway.ask_admin("/health/live")).status == 200


@pytest.mark.parametrize("mode", CREATIONS)
async def test_job_whose_creation_was_answered_unreadably_is_adopted_from_traffic(
    gateway: GatewayProcess, upstream: AnalysisApi, mode: str
) -> None:
    before = await gateway.metrics()
    await upstream.fault(mode, routes=["create"], count=1)
    answer = await gateway.request("POST", "/api/v1/analysis", {"url": VIDEO})

    assert answer.status == 200  # the upstream's answer is the client's, whatever it is
    if mode == "html":
        assert answer.body.startswith(b"<html>")
        return  # and no job was made

    async def refused() -> bool:
        return (await gateway.metrics()).get(REFUSED, 0.0) == before.get(REFUSED, 0.0) + 1

    await eventually("the refusal is counted", refused)
    listed = await gateway.request("GET", "/api/v1/jobs")
    assert listed.status == 200

    async def ended() -> bool:
        metrics = await gateway.metrics()
        name = "gateway_jobs_completed_total"
        return metrics[name] == before[name] + 1

    await eventually("the job is known and followed to its end", ended)
    after = await gateway.metrics()
    assert after["gateway_jobs_created_total"] == before["gateway_jobs_created_total"] + 1
    assert after["gateway_jobs_active"] == 0


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"\xff", b"[]", b'{"url": 7}', b'{"url": "https://example.com/video"}'],
    ids=["cut-off", "empty", "not-text", "array", "number", "other-site"],
)
async def test_bad_creation_is_refused_by_the_upstream_and_makes_no_job(
    gateway: GatewayProcess, upstream: AnalysisApi, body: bytes
) -> None:
    before = (await gateway.metrics())["gateway_jobs_created_total"]
    headers = {"Content-Type": "application/json"}
    answer = await gateway.request("POST", "/api/v1/analysis", data=body, headers=headers)

    assert answer.status in (400, 422)
    assert orjson.loads(answer.body)["status" if answer.status == 422 else "detail"]
    assert (await gateway.metrics())["gateway_jobs_created_total"] == before


@pytest.mark.parametrize(("mode", "status"), [("reset", 502), ("status_500", 500), ("html", 200)])
async def test_client_gets_the_fault_itself_and_never_a_hang_or_a_crash(
    gateway: GatewayProcess, upstream: AnalysisApi, mode: str, status: int
) -> None:
    job_id = await gateway.create()
    await gateway.finish(job_id)
    await upstream.fault(mode, routes=["details"])
    answers = await asyncio.gather(
        *(gateway.request("GET", f"/api/v1/analysis/{job_id}") for _ in range(10))
    )

    assert {answer.status for answer in answers} == {status}
    if status == 502:
        assert {answer.headers["Content-Type"] for answer in answers} == {
            "application/problem+json"
        }
    await upstream.fault(None)
    details = await gateway.request("GET", f"/api/v1/analysis/{job_id}")
    assert details.document["results"]
