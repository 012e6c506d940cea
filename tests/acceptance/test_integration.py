"""End to end: from a creation to webhooks and Convex in step, through every kind of trouble."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from typing import Any

import pytest

from tests.acceptance.conftest import Launch
from tests.support.convex import ConvexServer
from tests.support.receiver import Receiver
from tests.support.system import (
    FAILING_VIDEO,
    KEY,
    OTHER_KEY,
    READ_KEY,
    TERMINAL,
    VIDEO,
    AnalysisApi,
    Answer,
    GatewayProcess,
    eventually,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROBLEM = "application/problem+json"
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SERIES = {
    "gateway_http_request_duration_seconds_count",
    "gateway_upstream_request_duration_seconds_count",
    "gateway_job_processing_seconds_count",
    "gateway_job_stage_seconds_count",
    "gateway_jobs_created_total",
    "gateway_jobs_completed_total",
    "gateway_jobs_failed_total",
    "gateway_active_connections",
    "gateway_delivery_attempts_total",
    "gateway_cache_requests_total",
    "gateway_event_loop_lag_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
}
COMPONENTS = {
    "upstream",
    "sqlite",
    "convex",
    "redis",
    "memory",
    "cpu",
    "event_loop",
    "jobs",
    "webhooks",
    "policies",
}


def check_end(timeline: list[Any], kind: str) -> Any:
    """The terminal event's data; the timeline is gap-free and has one end, of this kind."""
    types = [event["type"] for event in timeline]
    assert [event["sequence"] for event in timeline] == list(range(1, len(timeline) + 1))
    assert types[0] == "job.started"
    assert [name for name in types if name in TERMINAL] == [types[-1]] == [kind]
    return timeline[-1]["data"]


def with_convex(convex: ConvexServer) -> dict[str, Any]:
    """Settings that write to this deployment."""
    return {
        "convex": {"url": convex.url, "retry_delays": ["100ms", "200ms"]},
        "environment": {"CONVEX_DEPLOY_KEY": convex.deploy_key},
    }


async def row_of(convex: ConvexServer, job_id: str, table: str = "jobs") -> Mapping[str, Any]:
    """A job's row, empty when there is none."""
    rows = [row for row in await convex.dump(table) if row.get("jobId") == job_id]
    assert len(rows) <= 1
    return rows[0] if rows else {}


async def check_in_step(
    convex: ConvexServer, receiver: Receiver, job_id: str, timeline: list[Any]
) -> Mapping[str, Any]:
    """Webhook and Convex hold the same end: state, sequence, stage and progress; the row."""
    last = timeline[-1]

    async def caught_up() -> bool:
        return bool((await row_of(convex, job_id)).get("sequence") == last["sequence"])

    await eventually("Convex has the last event", caught_up)
    await receiver.wait_until(lambda: last["id"] in {r.id for r in receiver.at("/hook")})
    (told,) = [request.envelope for request in receiver.at("/hook") if request.id == last["id"]]
    row = await row_of(convex, job_id)
    assert told == last
    assert (row["status"], row["sequence"]) == (told["data"]["status"], told["sequence"])
    assert row["currentStage"] == told["data"]["stage"]
    assert row["progressPercentage"] == told["data"]["progress"]
    return row


# --- a job's whole way -------------------------------------------------------------------------


async def test_completed_job_is_the_same_in_its_timeline_webhooks_and_convex(
    launch: Launch, upstream: AnalysisApi, convex: ConvexServer, receiver: Receiver
) -> None:
    gateway = await launch(upstream.url, **with_convex(convex))
    webhook = await gateway.register(receiver.url)
    job_id = await gateway.create(webhook_urls=[receiver.url_of("/own")])
    timeline = await gateway.finish(job_id)

    end = check_end(timeline, "job.completed")
    assert end["results"]
    assert (end["progress"], end["error"], end["video_id"]) == (100, None, "2434635255")
    row = await check_in_step(convex, receiver, job_id, timeline)
    for request in receiver.at("/hook"):
        assert request.verify(webhook["secret"]) == request.envelope
    first_attempts = [r.envelope["sequence"] for r in receiver.at("/hook") if r.attempt == 1]
    assert first_attempts == sorted(first_attempts)
    assert row["webhookUrls"] == [receiver.url_of("/own")]
    assert row["processingStartedAt"] <= row["processingCompletedAt"]
    assert row["stagesCompleted"] <= row["totalStages"]

    async def in_every_table() -> bool:
        tables = [await row_of(convex, job_id, name) for name in ("videos", "jobAnalytics")]
        configs = await convex.dump("webhookConfigs")
        return all(tables) and webhook["id"] in {each["webhookId"] for each in configs}

    await eventually("the video, the analytics and the webhook are there too", in_every_table)
    video = await row_of(convex, job_id, "videos")
    assert (video["twitchId"], video["status"]) == ("2434635255", "completed")
    assert webhook["secret"] not in str(await convex.dump("webhookConfigs"))


async def test_failed_job_tells_why_everywhere(
    launch: Launch, upstream: AnalysisApi, convex: ConvexServer, receiver: Receiver
) -> None:
    gateway = await launch(upstream.url, **with_convex(convex))
    await gateway.register(receiver.url)
    job_id = await gateway.create(FAILING_VIDEO)
    timeline = await gateway.finish(job_id)

    end = check_end(timeline, "job.failed")
    assert end["error"]["error_code"] == "DEEPGRAM_DOWN"
    row = await check_in_step(convex, receiver, job_id, timeline)
    assert (row["errorType"], row["errorCode"]) == ("external_service_error", "DEEPGRAM_DOWN")
    assert (row["isRetryable"], row["supportReference"]) == (True, "ERR-1")
    name = "gateway_jobs_failed_total{error_type=external_service_error}"
    assert (await gateway.metrics())[name] == 1
    # Another try for the same video counts as its retry.
    again = await gateway.create(FAILING_VIDEO)
    await gateway.finish(again)

    async def counted() -> bool:
        return bool((await row_of(convex, again)).get("retryCount") == 1)

    await eventually("the retry is counted", counted)


async def test_convex_away_and_back_catches_up_while_webhooks_go_on(
    launch: Launch, upstream: AnalysisApi, receiver: Receiver, convex: ConvexServer
) -> None:
    convex.stop()
    try:
        gateway = await launch(upstream.url, **with_convex(convex))
        await gateway.register(receiver.url)
        job_id = await gateway.create()
        timeline = await gateway.finish(job_id)
        check_end(timeline, "job.completed")
        last = timeline[-1]["id"]
        await receiver.wait_until(lambda: last in {r.id for r in receiver.requests})

        async def noticed() -> bool:
            report = await gateway.health()
            return bool(report["components"]["convex"]["status"] != "healthy")

        await eventually("health shows that Convex is away", noticed)
        assert (await gateway.health())["status"] == "degraded"
    finally:
        convex.start()
    await check_in_step(convex, receiver, job_id, timeline)

    async def well_again() -> bool:
        report = await gateway.health()
        return bool(report["components"]["convex"]["status"] == "healthy")

    await eventually("health shows that it is back", well_again)


async def test_cancelled_job_ends_as_cancelled(launch: Launch, receiver: Receiver) -> None:
    async with AnalysisApi(speed=1) as api:
        gateway = await launch(api.url)
        await gateway.register(receiver.url, ["job.cancelled", "job.failed", "job.completed"])
        job_id = await gateway.create()
        answer = await gateway.request("DELETE", f"/api/v1/queue/jobs/{job_id}")
        timeline = await gateway.finish(job_id)
        await receiver.wait_for(1)

        assert answer.status == 200
        assert check_end(timeline, "job.cancelled")["status"] == "cancelled"
        assert receiver.events == ["job.cancelled"]
        assert (await gateway.metrics())["gateway_jobs_cancelled_total"] == 1


# --- recovery ----------------------------------------------------------------------------------


async def test_job_that_an_upstream_restart_forgot_ends_as_lost(
    launch: Launch, receiver: Receiver
) -> None:
    async with AnalysisApi(speed=1) as api:
        gateway = await launch(api.url)
        await gateway.register(receiver.url, ["job.completed", "job.failed"])
        job_id = await gateway.create()
        await api.stop()
        await api.start()
        timeline = await gateway.finish(job_id)
        await receiver.wait_for(1)

        error = check_end(timeline, "job.failed")["error"]
        assert (error["error_type"], error["is_retryable"]) == ("job_lost", True)
        assert receiver.requests[0].envelope == timeline[-1]


async def test_upstream_that_is_away_at_the_start_costs_a_502_until_it_comes(
    launch: Launch,
) -> None:
    async with AnalysisApi() as api:
        await api.stop()
        gateway = await launch(api.url)
        async with asyncio.timeout(5):
            answer = await gateway.request("POST", "/api/v1/analysis", {"url": VIDEO})

        assert (answer.status, answer.headers["Content-Type"]) == (502, PROBLEM)
        assert answer.document["title"] == "Upstream unreachable"
        assert str(api.port) not in answer.body.decode()
        assert (await gateway.ask_admin("/health/ready")).status == 200

        async def noticed() -> bool:
            return bool((await gateway.health())["components"]["upstream"]["status"] == "unhealthy")

        await eventually("health shows that the upstream is away", noticed)
        await api.start()
        check_end(await gateway.finish(await gateway.create()), "job.completed")

        async def whole() -> bool:
            return bool((await gateway.health())["components"]["upstream"]["status"] == "healthy")

        await eventually("health shows that it is back", whole)


# --- keys, limits, headers ---------------------------------------------------------------------


async def test_key_never_reaches_the_upstream(
    gateway: GatewayProcess, upstream: AnalysisApi
) -> None:
    await gateway.create()
    bearer = {"Authorization": f"Bearer {KEY}"}
    by_bearer = await gateway.request("GET", "/api/v1/jobs", key=None, headers=bearer)
    echoed = await gateway.request("POST", "/api/v1/analysis", {"url": 7})
    theirs = {"Authorization": "Basic dXBzdHJlYW06c2VjcmV0"}
    await gateway.request("GET", "/api/v1/test", headers=theirs)

    assert by_bearer.status == 200
    assert echoed.status == 422  # this answer echoes every header the upstream got
    assert KEY not in echoed.body.decode()
    recent = (await upstream.stats())["recent"]
    assert KEY not in str(recent)
    last = [request for request in recent if request["path"] == "/api/v1/test"][-1]
    assert ["authorization", theirs["Authorization"]] in last["headers"]
    assert KEY not in gateway.log


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/api/v1/jobs", None, 401),
        ("GET", "/api/v1/jobs", "gw_not-a-key", 401),
        ("POST", "/api/v1/analysis", READ_KEY, 403),
        ("GET", "/api/v1/webhooks", READ_KEY, 403),
        ("POST", "/api/v1/queue/pause", KEY, 403),
    ],
    ids=["no-key", "wrong-key", "no-scope-create", "no-scope-webhooks", "not-admin"],
)
async def test_who_may_not_is_told_so_and_the_upstream_hears_nothing(
    gateway: GatewayProcess,
    upstream: AnalysisApi,
    method: str,
    path: str,
    key: str | None,
    status: int,
) -> None:
    before = await upstream.asked()
    answer = await gateway.request(
        method, path, {"url": VIDEO} if method == "POST" else None, key=key
    )

    assert (answer.status, answer.headers["Content-Type"]) == (status, PROBLEM)
    assert answer.document["status"] == status
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert await upstream.asked() == before


async def test_owner_sees_its_own_jobs_history_alone(gateway: GatewayProcess) -> None:
    job_id = await gateway.create()
    await gateway.finish(job_id)
    path = f"/api/v1/jobs/{job_id}/events"
    history = (await gateway.request("GET", "/api/v1/jobs/history", key=OTHER_KEY)).document

    assert (await gateway.request("GET", path, key=OTHER_KEY)).status == 404
    assert (await gateway.request("GET", path, key=READ_KEY)).status == 200
    assert job_id not in str(history)


async def test_rate_limit_counts_each_key_and_says_when_to_come_back(
    launch: Launch, upstream: AnalysisApi
) -> None:
    limits = {"tight": {"limit": 3, "window": "60s", "by": ["key"]}}
    gateway = await launch(upstream.url, policies={"rate_limits": {"limits": limits}})
    answers = [await gateway.request("GET", "/api/v1/test") for _ in range(4)]
    other = await gateway.request("GET", "/api/v1/test", key=OTHER_KEY)
    refused = answers[-1]

    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert other.status == 200
    for answer, left in zip(answers, (2, 1, 0, 0), strict=True):
        assert answer.headers["RateLimit-Policy"].startswith('"tight";q=3;w=60')
        assert answer.headers["RateLimit"].startswith(f'"tight";r={left};t=')
    assert 1 <= int(refused.headers["Retry-After"]) <= 61
    assert refused.headers["Content-Type"] == PROBLEM
    assert refused.document["violated-policies"] == ["tight"]
    assert refused.document["type"].endswith("#quota-exceeded")


async def test_every_answer_carries_the_security_headers_and_a_request_id(
    gateway: GatewayProcess, upstream: AnalysisApi
) -> None:
    await upstream.fault("reset", routes=["list"])
    broken = await gateway.request("GET", "/api/v1/jobs")
    answers = {
        200: await gateway.request("GET", "/api/v1/test"),
        400: await gateway.request("GET", "/api/v1/analysis/a%2Fb/status"),
        401: await gateway.request("GET", "/api/v1/jobs", key=None),
        403: await gateway.request("GET", "/api/v1/webhooks", key=READ_KEY),
        404: await gateway.request("GET", "/nothing"),
        405: await gateway.request("DELETE", "/api/v1/webhooks"),
        413: await gateway.request("POST", "/api/v1/analysis", data=io.BytesIO(b" " * 2**21)),
        422: await gateway.request("POST", "/api/v1/webhooks", {"evnts": []}),
        502: broken,
    }

    assert {status: answer.status for status, answer in answers.items()} == {
        status: status for status in answers
    }
    for answer in answers.values():
        _check_headers(answer)
    ids = [answer.headers["X-Request-ID"] for answer in answers.values()]
    assert len(set(ids)) == len(ids)


def _check_headers(answer: Answer) -> None:
    assert {name: answer.headers.get(name) for name in SECURITY} == SECURITY
    assert "Server" not in answer.headers
    assert "Strict-Transport-Security" not in answer.headers  # it was no TLS connection
    assert len(answer.headers["X-Request-ID"]) >= 8


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 65536 + b"\r\n\r\n", 431),
    ],
    ids=["tls", "version", "nul", "two-lengths", "long-field"],
)
async def test_bytes_that_are_not_http_are_refused_with_the_same_headers(
    gateway: GatewayProcess, data: bytes, status: int
) -> None:
    answer = (await gateway.speak(data)).decode("latin-1").lower()

    assert answer.startswith(f"http/1.1 {status} ")
    for name, value in SECURITY.items():
        assert f"{name}: {value}\r\n".lower() in answer
    assert "\r\nserver:" not in answer
    assert "traceback" not in answer
    assert (await gateway.request("GET", "/api/v1/test")).status == 200


async def test_request_id_of_a_client_is_carried_through_if_well_formed(
    gateway: GatewayProcess, upstream: AnalysisApi, receiver: Receiver
) -> None:
    await gateway.register(receiver.url, ["job.completed"])
    answer = await gateway.request(
        "POST", "/api/v1/analysis", {"url": VIDEO}, headers={"X-Request-ID": "client-id-0001"}
    )
    bad = await gateway.request("GET", "/api/v1/test", headers={"X-Request-ID": "<script>"})
    await receiver.wait_for(1)

    assert answer.headers["X-Request-ID"] == "client-id-0001"
    assert bad.headers["X-Request-ID"] != "<script>"
    assert receiver.requests[0].headers["X-Request-ID"] == "client-id-0001"
    creations = [r for r in (await upstream.stats())["recent"] if r["method"] == "POST"]
    assert ["x-request-id", "client-id-0001"] in creations[-1]["headers"]
    assert '"request_id":"client-id-0001"' in gateway.log


# --- what operators read -----------------------------------------------------------------------


async def test_metrics_hold_every_series_and_no_ids(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    await gateway.register(receiver.url, ["job.completed", "job.failed"])
    jobs = [await gateway.create(), await gateway.create(FAILING_VIDEO)]
    for job_id in jobs:
        await gateway.finish(job_id)
        await gateway.status(job_id)
    await receiver.wait_for(2)
    text = (await gateway.ask_admin("/metrics")).body.decode()
    metrics = await gateway.metrics()

    assert metrics.keys() >= SERIES
    for name in ("created", "completed", "failed"):
        assert metrics[f"gateway_jobs_{name}_total"] >= 1
    assert not [job_id for job_id in jobs if job_id in text]
    assert receiver.url not in text


async def test_health_shows_every_component_inside_and_only_the_status_outside(
    gateway: GatewayProcess,
) -> None:
    async def checked() -> bool:
        report = await gateway.health()
        return "unknown" not in {each["status"] for each in report["components"].values()}

    await eventually("every component was checked", checked)
    report = await gateway.health()
    public = await gateway.request("GET", "/health", key=None)

    assert report["components"].keys() >= COMPONENTS
    for component in report["components"].values():
        assert component.keys() >= {"status", "latency_seconds", "last_success_at", "error"}
    for name in ("upstream", "sqlite", "jobs", "policies"):
        assert report["components"][name]["status"] == "healthy"
    assert public.status == 200
    assert public.document.keys() == {"status"}
    assert (await gateway.ask_admin("/health/live")).status == 200
    assert (await gateway.ask_admin("/health/ready")).status == 200
    for path in ("/metrics", "/health/live", "/health/ready", "/drain"):
        assert (await gateway.request("GET", path)).status == 404
