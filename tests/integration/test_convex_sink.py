"""From a job's change to the rows of the real functions of `convex/`, with the outbox on disk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.core.job import Job, Observation, State
from gateway.core.outbox import DeliveryStatus
from gateway.core.transition import begin
from gateway.core.webhook import WebhookStatus
from gateway.delivery.convex import ConvexFunctionError, HistoryQuery
from gateway.delivery.convex_error import COMPARE, LOOK_UP, SHORTEN
from gateway.delivery.convex_sink import DOUBTFUL_TRIES
from gateway.delivery.subscription import WebhookPublisher
from gateway.settings.delivery import ConvexFunctions
from tests.support.convex import ConvexServer, require_server
from tests.support.convex_world import World, opened
from tests.support.delivery import SECRET, make_webhook

UPDATE = "jobs:updateProgress"

FAILURE = {
    "error_type": "external_service_error",
    "error_code": "DEEPGRAM_DOWN",
    "error_message": "boom",
    "is_retryable": True,
    "support_reference": "ERR-1",
}


@pytest.fixture(scope="module")
def convex_process() -> Iterator[ConvexServer]:
    require_server()
    with ConvexServer() as server:
        yield server


@pytest.fixture
async def server(convex_process: ConvexServer) -> ConvexServer:
    await convex_process.reset()
    return convex_process


@pytest.fixture
async def world(server: ConvexServer, tmp_path: Path) -> AsyncIterator[World]:
    async with opened(server, tmp_path) as world:
        yield world


async def test_job_and_its_video_hold_every_field_of_the_last_state(world: World) -> None:
    job = await world.create(webhook_urls=("https://example.com/",), webhook_events=("job.*",))
    job = await world.observe(
        job,
        stage="Transcribing",
        percentage=42.5,
        stages_completed=3,
        total_stages=7,
        eta_seconds=120.0,
    )
    await world.settled()

    expected = {
        "jobId": "j1",
        "status": "running",
        "currentStage": "Transcribing",
        "progressPercentage": 42.5,
        "estimatedCompletionSeconds": 120.0,
        "stagesCompleted": 3.0,
        "totalStages": 7.0,
        "retryCount": 0.0,
        "webhookUrls": ["https://example.com/"],
        "webhookEvents": ["job.*"],
    }
    assert job.running_since is not None
    times = {
        "lastProgressUpdate": float(round(job.observed_at * 1000)),
        "processingStartedAt": float(round(job.running_since * 1000)),
        "estimatedCompletionTime": float(round((job.observed_at + 120) * 1000)),
    }
    for table in ("jobs", "videos"):
        row = await world.row(table)
        assert {name: row[name] for name in expected | times} == expected | times
    row = await world.row("jobs")
    assert (row["sequence"], row["videoId"], row["owner"]) == (float(job.sequence), "v1", "acme")


async def test_end_of_a_job_is_stored_with_its_error_and_analytics(world: World) -> None:
    job = await world.observe(await world.create(), stage="Downloading", percentage=5.0)
    job = await world.observe(job, State.FAILED, error=FAILURE)
    deliveries = await world.settled()

    assert {each.message.status for each in deliveries} <= {
        DeliveryStatus.SUCCEEDED,
        DeliveryStatus.SUPERSEDED,
    }
    row, analytics = await world.row("videos"), await world.row("jobAnalytics")
    expected = {
        "status": "failed",
        "errorType": "external_service_error",
        "errorCode": "DEEPGRAM_DOWN",
        "isRetryable": True,
        "supportReference": "ERR-1",
    }
    assert job.finished_at is not None
    assert {name: row[name] for name in expected} == expected
    assert row["processingCompletedAt"] == round(job.finished_at * 1000)
    assert analytics["status"] == "failed"
    assert [each["stage"] for each in analytics["stages"]] == ["Downloading"]
    assert analytics["totalSeconds"] == pytest.approx(job.finished_at - job.created_at)


async def test_deployment_that_is_away_catches_up_without_losing_the_end(
    tmp_path: Path,
) -> None:
    require_server()
    server = ConvexServer()
    with server:
        pass  # chosen its port, and gone
    async with opened(server, tmp_path) as world:
        job = await world.create()
        for percentage in range(1, 30):
            job = await world.observe(job, percentage=float(percentage))
        await world.observe(job, State.COMPLETED)
        await world.until(lambda log: any(len(each.attempts) > 3 for each in log))
        shown = world.sink.last_error
        server.start()
        try:
            deliveries = await world.settled()
            row = await world.row("jobs")
            stats = await server.stats()
        finally:
            server.stop()
        mended = world.sink.last_error
    assert (shown is None, mended) == (False, None)
    assert (row["status"], row["progressPercentage"]) == ("completed", 100.0)
    kinds = [each.message.status for each in deliveries]
    assert kinds.count(DeliveryStatus.SUPERSEDED) >= 28
    assert set(kinds) == {DeliveryStatus.SUPERSEDED, DeliveryStatus.SUCCEEDED}
    assert stats["paths"][UPDATE]["received"] <= 3


@pytest.mark.parametrize("fault", ["429", "503", "500", "drop", "truncated", "html", "lost_reply"])
async def test_fault_is_retried_and_applied_once(world: World, fault: str) -> None:
    await world.server.fault(fault, count=2)
    await world.create()
    (delivery,) = await world.settled()

    assert delivery.message.status is DeliveryStatus.SUCCEEDED
    assert len(delivery.attempts) == 3
    assert [each.error_kind is None for each in delivery.attempts] == [False, False, True]
    row = await world.row("jobs")
    assert (row["status"], row["sequence"]) == ("queued", 1.0)


async def test_retry_after_of_the_deployment_is_kept(world: World) -> None:
    await world.server.fault("503", count=1, retry_after="3600")
    await world.create()
    (delivery,) = await world.until(lambda log: log[0].message.status is DeliveryStatus.RETRYING)
    assert delivery.message.due_at >= delivery.message.created_at + 3600


async def test_deployment_that_hangs_is_a_timeout(server: ConvexServer, tmp_path: Path) -> None:
    await server.fault("hold")
    async with opened(server, tmp_path, timeout=0.1) as world:
        await world.create()
        (delivery,) = await world.settled()
    await server.clear_faults()
    assert delivery.attempts[0].error_kind == "timeout"
    assert delivery.message.status is DeliveryStatus.SUCCEEDED


async def test_wrong_key_loses_nothing_and_is_shown(server: ConvexServer, tmp_path: Path) -> None:
    async with opened(server, tmp_path, deploy_key=SecretStr("test:key|wrong")) as world:
        job = await world.create()
        (delivery,) = await world.until(lambda log: bool(log[0].attempts))
        assert world.sink.last_error is not None
        assert "BadAdminKey" in world.sink.last_error
    assert delivery.message.status is DeliveryStatus.RETRYING
    assert delivery.attempts[0].error_kind == "configuration"
    assert delivery.message.due_at >= delivery.message.created_at + 60

    async with opened(server, tmp_path) as world:  # the key mended, the job gone on
        await world.observe(job, State.CANCELLED)
        await world.until(lambda log: log[-1].message.status is DeliveryStatus.SUCCEEDED)


async def test_functions_not_yet_deployed_lose_nothing(
    server: ConvexServer, tmp_path: Path
) -> None:
    functions = ConvexFunctions(update_progress="jobs:notYet")
    async with opened(server, tmp_path, functions=functions) as world:
        await world.create()
        (delivery,) = await world.until(lambda log: bool(log[0].attempts))
    assert delivery.message.status is DeliveryStatus.RETRYING
    assert delivery.attempts[0].error_kind == "configuration"


async def test_refused_arguments_end_as_a_dead_letter_with_the_functions_text(
    world: World,
) -> None:
    with pytest.raises(ConvexFunctionError) as refusal:
        await world.client.update_job_progress_detailed(
            {"jobId": "", "incarnation": "01K", "sequence": 1}
        )
    assert refusal.value.data == {"code": "INVALID_ARGUMENT", "message": "jobId must not be empty"}
    job = Job("j1", "", "acme", "u1", State.QUEUED, 1.0, 1.0)
    await world.record(begin(job, Observation("j1", 1.0, state=State.QUEUED), 1.0))
    (delivery,) = await world.settled()
    assert delivery.message.status is DeliveryStatus.EXHAUSTED
    assert len(delivery.attempts) == 1
    assert "incarnation must not be empty" in delivery.attempts[0].detail
    assert world.sink.last_error is None


async def test_updates_of_one_job_are_never_in_flight_together(world: World) -> None:
    await world.server.fault("hold")
    job = await world.create()
    await world.server.wait_until(lambda stats: stats["open"] == 1)
    for percentage in range(1, 10):
        job = await world.observe(job, percentage=float(percentage))
    await world.observe(await world.create("j2"), percentage=1.0)
    await world.server.wait_until(lambda stats: stats["paths"][UPDATE]["succeeded"] >= 1)
    assert await world.server.dump("jobs") != []
    assert [row["jobId"] for row in await world.server.dump("jobs")] == ["j2"]
    await world.server.clear_faults()
    await world.settled()
    rows = {row["jobId"]: row for row in await world.server.dump("jobs")}
    assert rows["j1"]["sequence"] == job.sequence
    assert (await world.server.stats())["paths"][UPDATE]["received"] <= 5


async def test_many_jobs_stay_within_the_concurrency(server: ConvexServer, tmp_path: Path) -> None:
    async with opened(server, tmp_path, concurrency=4) as world:
        for number in range(60):
            await world.create(f"j{number}")
        await world.settled()
        stats = await server.stats()
    assert len(await server.dump("jobs")) == 60
    # The server counts this test's own questions too.
    assert stats["peakOpen"] <= 5


async def test_webhook_changes_are_copied_and_late_ones_change_nothing(world: World) -> None:
    publish = WebhookPublisher(
        world.settings.functions, world.outbox, now=time.time, wake=world.dispatcher.wake
    )
    webhook = make_webhook(fields=("job_id",), headers={"X-Token": "hidden"})
    await publish(webhook, False)
    await world.settled()
    await publish(replace(webhook, revision=2, status=WebhookStatus.DISABLED), False)
    await world.settled()
    row = await world.row("webhookConfigs")
    assert (row["webhookId"], row["status"], row["revision"]) == ("wh_1", "disabled", 2.0)
    assert SECRET not in str(row)
    assert "hidden" not in str(row)

    await publish(replace(webhook, revision=2), True)
    await world.settled()
    await publish(replace(webhook, revision=2), False)
    await world.settled()
    assert (await world.row("webhookConfigs"))["deleted"] is True


async def test_history_is_read_page_by_page(world: World) -> None:
    for number in range(5):
        await world.create(f"j{number}")
    await world.settled()
    query = HistoryQuery(owner="acme", limit=2)
    found: list[str] = []
    while True:
        page = await world.client.get_job_history(query)
        found += [row["jobId"] for row in page.jobs]
        if page.cursor is None:
            break
        query = replace(query, cursor=page.cursor)
    assert found == ["j4", "j3", "j2", "j1", "j0"]
    assert (await world.client.get_job_history(HistoryQuery(job_id="j3"))).jobs[0]["jobId"] == "j3"
    later = HistoryQuery(since=time.time() + 60)
    assert (await world.client.get_job_history(later)).jobs == ()


async def test_web_apps_own_functions_are_called_when_configured(
    server: ConvexServer, tmp_path: Path
) -> None:
    functions = ConvexFunctions(
        update_status="video:updateStatusByTwitchId", update_urls="video:updateUrls"
    )
    async with opened(server, tmp_path, functions=functions) as world:
        job = await world.create()
        await world.until(lambda log: log[0].message.status.final)
        urls = {"transcript_url": "gs://t", "video_url": "https://v", "custom_url": "https://c"}
        await world.observe(job, State.COMPLETED, results=urls)
        await world.settled()
        video = await world.row("videos")
    assert (video["status"], video["transcript_url"]) == ("completed", "gs://t")
    assert video["video_url"] == "https://v"


async def test_web_apps_own_functions_come_after_the_update_that_makes_the_video(
    server: ConvexServer, tmp_path: Path
) -> None:
    functions = ConvexFunctions(
        update_status="video:updateStatusByTwitchId", update_urls="video:updateUrls"
    )
    await server.fault("delay", path=UPDATE, seconds=0.2, count=2)
    async with opened(server, tmp_path, functions=functions) as world:
        job = await world.create()
        await world.observe(job, State.COMPLETED, results={"video_url": "https://v"})
        deliveries = await world.settled()
        video = await world.row("videos")
    ends = {each.message.status for each in deliveries}
    assert ends <= {DeliveryStatus.SUPERSEDED, DeliveryStatus.SUCCEEDED}
    assert (video["status"], video["video_url"]) == ("completed", "https://v")


async def test_web_apps_own_functions_wait_while_convex_is_away_from_the_first(
    tmp_path: Path,
) -> None:
    require_server()
    server = ConvexServer()
    with server:
        pass  # chosen its port, and gone
    functions = ConvexFunctions(update_status="video:updateStatusByTwitchId")
    async with opened(server, tmp_path, functions=functions) as world:
        job = await world.create()
        await world.until(lambda log: bool(log[0].attempts))
        job = await world.observe(job, percentage=5.0)
        await world.observe(job, percentage=6.0)
        with server:
            deliveries = await world.settled()
            video = await world.row("videos")
    ends = {each.message.status for each in deliveries}
    assert ends == {DeliveryStatus.SUPERSEDED, DeliveryStatus.SUCCEEDED}
    assert video["status"] == "running"


async def test_production_that_hides_the_cause_ends_in_the_dead_letters_and_says_how_to_find_it(
    tmp_path: Path,
) -> None:
    require_server()
    functions = ConvexFunctions(track_analytics="jobs:notYet")
    with ConvexServer(production=True) as server:
        async with opened(server, tmp_path, functions=functions) as world:
            await world.observe(await world.create(), State.COMPLETED)
            deliveries = await world.settled()
            row = await world.row("jobs")
    dead = [each for each in deliveries if each.message.status is DeliveryStatus.EXHAUSTED]
    assert [each.message.kind for each in dead] == ["track_analytics"]
    assert len(dead[0].attempts) == DOUBTFUL_TRIES
    assert dead[0].attempts[-1].detail.endswith(LOOK_UP)
    assert row["status"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "code", "remedy"),
    [
        ({"currentStage": "x" * 2**20}, "Value is too large", SHORTEN),
        ({"resultUrls": {f"a{n}_url": "u" for n in range(1025)}}, "too many fields", SHORTEN),
        ({"newField": 1}, "newField", COMPARE),
        ({"stagesCompleted": None}, "ArgumentValidationError", COMPARE),
    ],
)
async def test_what_convex_refuses_says_what_to_do(
    world: World, arguments: dict[str, Any], code: str, remedy: str
) -> None:
    known = {"jobId": "j1", "incarnation": "01K", "sequence": 1}
    with pytest.raises(ConvexFunctionError, match=code) as refusal:
        await world.client.update_job_progress_detailed(known | arguments)
    assert (refusal.value.certain, refusal.value.remedy) == (True, remedy)
    assert await world.server.dump("jobs") == []
