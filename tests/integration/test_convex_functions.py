"""The functions of `convex/`: idempotent, monotone, and refusing what the schema does not allow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from tests.support.convex import ConvexServer, require_server
from tests.support.convex_caller import NEW_STORE, OLD_STORE, UPDATE, Caller, progress

MISSION_FIELDS: dict[str, Any] = {
    "currentStage": "Transcribing",
    "progressPercentage": 42.5,
    "estimatedCompletionSeconds": 120,
    "estimatedCompletionTime": 1_795_447_800_000,
    "stagesCompleted": 3,
    "totalStages": 7,
    "processingStartedAt": 1_795_447_616_000,
    "processingCompletedAt": 1_795_447_700_000,
    "lastProgressUpdate": 1_795_447_650_000,
    "errorType": "external_service_error",
    "errorCode": "DEEPGRAM_DOWN",
    "isRetryable": True,
    "retryCount": 1,
    "supportReference": "ERR-1",
    "webhookUrls": ["https://example.com/hook"],
    "webhookEvents": ["job.*"],
}


@pytest.fixture(scope="module")
def convex_process() -> Iterator[ConvexServer]:
    require_server()
    with ConvexServer() as server:
        yield server


@pytest.fixture
async def convex(convex_process: ConvexServer) -> AsyncIterator[Caller]:
    await convex_process.reset()
    async with aiohttp.ClientSession() as session:
        yield Caller(convex_process, session)


async def test_one_mutation_writes_every_field_to_the_job_and_its_video(convex: Caller) -> None:
    urls = {"transcript_url": "gs://t/segments.csv", "extra_url": "gs://x"}
    args = MISSION_FIELDS | {
        "status": "running",
        "owner": "acme",
        "createdAt": 5,
        "resultUrls": urls,
    }

    assert await convex.update(**args) == {"applied": True, "sequence": 1}

    key = {"jobId": "j1", "incarnation": OLD_STORE, "sequence": 1, "videoId": "v1"}
    assert await convex.job() == key | args
    assert await convex.video() == MISSION_FIELDS | {
        "twitchId": "v1",
        "jobId": "j1",
        "status": "running",
        "transcript_url": "gs://t/segments.csv",
    }


async def test_an_event_that_is_not_newer_is_ignored(convex: Caller) -> None:
    await convex.update(sequence=3, progressPercentage=30)

    same = await convex.update(sequence=3, progressPercentage=99)
    older = await convex.update(sequence=2, progressPercentage=20)

    assert [same, older] == [{"applied": False, "sequence": 3}] * 2
    assert (await convex.job())["progressPercentage"] == 30
    assert (await convex.video())["progressPercentage"] == 30


async def test_a_field_left_out_keeps_its_value(convex: Caller) -> None:
    await convex.update(sequence=1, stage="Fetching chat", totalStages=7, createdAt=5)
    await convex.update(sequence=2, progressPercentage=60)

    job = await convex.job()

    assert (job["currentStage"], job["totalStages"], job["createdAt"]) == ("Fetching chat", 7, 5)
    assert (await convex.video())["currentStage"] == "Fetching chat"


async def test_concurrent_events_end_at_the_newest(convex: Caller) -> None:
    sequences = [7, 2, 9, 1, 8, 3, 10, 5, 4, 6]

    verdicts = await asyncio.gather(
        *(convex.update(sequence=n, progressPercentage=n) for n in sequences)
    )

    assert (await convex.job())["sequence"] == 10
    assert (await convex.video())["progressPercentage"] == 10
    applied = [n for n, verdict in zip(sequences, verdicts, strict=True) if verdict["applied"]]
    assert 10 in applied
    assert all(verdict["sequence"] >= n for n, verdict in zip(sequences, verdicts, strict=True))


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_a_terminal_state_does_not_regress(convex: Caller, end: str) -> None:
    await convex.update(sequence=5, status=end, estimatedCompletionSeconds=0)

    for later, status in enumerate(["queued", "running", "completed", "failed", "cancelled"], 6):
        if status != end:
            verdict = await convex.update(sequence=later, status=status)
            assert verdict == {"applied": False, "sequence": 5}
    assert not (await convex.update(sequence=11, progressPercentage=1))["applied"]

    assert (await convex.job())["status"] == end
    assert (await convex.video())["status"] == end


async def test_what_is_over_keeps_no_estimate(convex: Caller) -> None:
    await convex.update(sequence=1, status="running", estimatedCompletionSeconds=9)
    await convex.update(sequence=2, status="completed")

    assert "estimatedCompletionSeconds" not in await convex.job()
    assert "estimatedCompletionSeconds" not in await convex.video()


async def test_a_younger_store_starts_the_job_afresh(convex: Caller) -> None:
    await convex.update(sequence=40, status="failed", errorCode="LOST", createdAt=5)

    verdict = await convex.update(incarnation=NEW_STORE, sequence=1, status="running")
    late = await convex.update(sequence=41, status="failed", errorCode="LOST")

    assert verdict == {"applied": True, "sequence": 1}
    assert late == {"applied": False, "sequence": 1}
    job = await convex.job()
    assert (job["status"], job["createdAt"]) == ("running", 5)
    assert "errorCode" not in job
    assert "errorCode" not in await convex.video()


@pytest.mark.parametrize("order", [["old", "new"], ["new", "old"]])
async def test_the_newest_job_of_a_video_owns_its_row(convex: Caller, order: list[str]) -> None:
    jobs: dict[str, dict[str, object]] = {
        "old": {"jobId": "j-old", "createdAt": 100, "status": "failed", "errorCode": "BOOM"},
        "new": {"jobId": "j-new", "createdAt": 200, "status": "running", "progressPercentage": 5},
    }
    for name in order:
        assert (await convex.update(**jobs[name]))["applied"]

    assert len(await convex.rows("jobs")) == 2
    video = await convex.video()
    assert (video["jobId"], video["status"]) == ("j-new", "running")
    assert "errorCode" not in video


async def test_a_video_keeps_what_the_frontend_wrote(convex: Caller) -> None:
    await convex.update(sequence=1, resultUrls={"chat_url": "gs://old"})
    urls = {"transcriptUrl": "https://legacy", "chat_url": "gs://new"}
    await convex.value("mutation", "video:updateUrls", {"twitchId": "v1", "urls": urls})

    await convex.update(jobId="j2", createdAt=2**45, status="queued")

    video = await convex.video()
    assert (video["jobId"], video["transcriptUrl"], video["chat_url"]) == (
        "j2",
        "https://legacy",
        "gs://new",
    )


async def test_a_job_without_a_video_touches_no_video(convex: Caller) -> None:
    args = progress()
    del args["videoId"]

    await convex.value("mutation", UPDATE, args)

    assert await convex.rows("videos") == []
    assert (await convex.value("query", "jobs:get", {"jobId": "j1"}))["sequence"] == 1
    assert await convex.value("query", "jobs:get", {"jobId": "j2"}) is None


async def test_null_for_an_optional_field_is_refused(convex: Caller) -> None:
    answer = await convex.error("mutation", UPDATE, progress(errorType=None))

    assert "ArgumentValidationError" in answer["errorMessage"]
    assert "errorData" not in answer
    assert await convex.rows("jobs") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "Transcribing"},
        {"progressPercentage": "42"},
        {"secret": "s"},
        {"webhookUrls": "u"},
        {"resultUrls": {"a_url": None}},
        {"resultUrls": {"_url": "u"}},
    ],
)
async def test_the_schema_refuses_wrong_fields(convex: Caller, wrong: dict[str, object]) -> None:
    answer = await convex.error("mutation", UPDATE, progress(**wrong))

    assert "ArgumentValidationError" in answer["errorMessage"]
    assert await convex.rows("jobs") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"jobId": ""},
        {"incarnation": ""},
        {"sequence": 0},
        {"sequence": 1.5},
        {"videoId": ""},
        {"progressPercentage": 250},
        {"progressPercentage": -1},
    ],
)
async def test_an_impossible_value_is_refused_with_a_code(
    convex: Caller, wrong: dict[str, object]
) -> None:
    answer = await convex.error("mutation", UPDATE, progress(**wrong))

    assert answer["errorData"]["code"] == "INVALID_ARGUMENT"
    assert next(iter(wrong)) in answer["errorData"]["message"]
    assert await convex.rows("jobs") == []


async def test_analytics_are_kept_once(convex: Caller) -> None:
    args = {
        "jobId": "j1",
        "incarnation": OLD_STORE,
        "sequence": 9,
        "status": "completed",
        "stages": [{"stage": "Generating waveform", "seconds": 1.5}],
        "totalSeconds": 12.5,
    }

    first = await convex.value("mutation", "jobs:trackAnalytics", args)
    again = await convex.value("mutation", "jobs:trackAnalytics", args | {"totalSeconds": 99})

    assert (first["applied"], again["applied"]) == (True, False)
    assert await convex.rows("jobAnalytics") == [args]
    running = await convex.error("mutation", "jobs:trackAnalytics", args | {"status": "running"})
    assert running["errorData"]["code"] == "INVALID_ARGUMENT"


async def history(convex: Caller, size: int = 100, **wanted: object) -> list[list[str]]:
    """The job ids of every page of `jobs:history`."""
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        options = {"numItems": size, "cursor": cursor}
        page = await convex.value("query", "jobs:history", {**wanted, "paginationOpts": options})
        pages.append([job["jobId"] for job in page["page"]])
        if page["isDone"]:
            return pages
        cursor = page["continueCursor"]


async def test_history_is_paged_youngest_first(convex: Caller) -> None:
    for n in range(5):
        await convex.update(jobId=f"j{n}", createdAt=100 + n)

    assert await history(convex, size=2) == [["j4", "j3"], ["j2", "j1"], ["j0"]]


async def test_history_selects_by_every_argument(convex: Caller) -> None:
    for n in range(6):
        await convex.update(
            jobId=f"j{n}",
            createdAt=100 + n,
            videoId=f"v{n % 2}",
            owner="acme" if n < 3 else "other",
            status="completed" if n % 3 == 0 else "running",
        )

    assert await history(convex, jobId="j4") == [["j4"]]
    assert await history(convex, jobId="j4", owner="acme") == [[]]
    assert await history(convex, videoId="v0") == [["j4", "j2", "j0"]]
    assert await history(convex, videoId="v0", owner="acme") == [["j2", "j0"]]
    assert await history(convex, owner="other", status="completed") == [["j3"]]
    assert await history(convex, status="completed") == [["j3", "j0"]]
    assert await history(convex, **{"from": 102, "to": 104}) == [["j3", "j2"]]
    assert await history(convex, videoId="v1", **{"from": 103}) == [["j5", "j3"]]


@pytest.mark.parametrize("size", [0, 501, 1.5])
async def test_history_refuses_an_impossible_page(convex: Caller, size: float) -> None:
    args = {"paginationOpts": {"numItems": size, "cursor": None}}

    answer = await convex.error("query", "jobs:history", args)

    assert answer["errorData"]["code"] == "INVALID_ARGUMENT"


def config(**fields: object) -> dict[str, object]:
    """Arguments of `webhooks:storeConfig`."""
    always: dict[str, object] = {
        "webhookId": "wh_1",
        "revision": 1,
        "owner": "acme",
        "url": "https://example.com/hook",
        "events": ["job.*"],
    }
    return always | fields


async def listed(convex: Caller, **wanted: object) -> list[str]:
    options = {"numItems": 100, "cursor": None}
    page = await convex.value("query", "webhooks:list", {**wanted, "paginationOpts": options})
    return [row["webhookId"] for row in page["page"]]


async def test_a_webhook_config_keeps_its_newest_revision(convex: Caller) -> None:
    path = "webhooks:storeConfig"
    await convex.value("mutation", path, config(revision=2, events=["job.failed"]))

    late = await convex.value("mutation", path, config(revision=1))
    again = await convex.value("mutation", path, config(revision=2))
    newer = await convex.value("mutation", path, config(revision=3, status="paused"))

    assert late == again == {"applied": False, "revision": 2}
    assert newer == {"applied": True, "revision": 3}
    assert await convex.rows("webhookConfigs") == [
        config(revision=3, status="paused", deleted=False)
    ]


async def test_a_deleted_webhook_does_not_come_back(convex: Caller) -> None:
    path = "webhooks:storeConfig"
    await convex.value("mutation", path, config(webhookId="wh_2", owner="other"))
    await convex.value("mutation", path, config())
    gone = {"webhookId": "wh_1", "revision": 2, "deleted": True}
    assert (await convex.value("mutation", path, gone))["applied"]

    late = await convex.value("mutation", path, config(revision=3))

    assert late == {"applied": False, "revision": 2}
    assert (await convex.rows("webhookConfigs"))[1] == gone | {"owner": "acme"}
    assert await listed(convex) == ["wh_2"]
    assert await listed(convex, owner="acme") == []


@pytest.mark.parametrize("field", ["secret", "previousSecret", "headers"])
async def test_a_webhook_secret_is_refused(convex: Caller, field: str) -> None:
    answer = await convex.error("mutation", "webhooks:storeConfig", config(**{field: "whsec_x"}))

    assert "ArgumentValidationError" in answer["errorMessage"]
    assert await convex.rows("webhookConfigs") == []


async def test_todays_video_functions_are_public_and_need_the_video(convex: Caller) -> None:
    args = {"twitchId": "v1", "status": "Completed"}
    body = {"path": "video:updateStatusByTwitchId", "args": args, "format": "json"}

    _, unknown = await convex.post("mutation", body)
    await convex.update(status="running")
    _, known = await convex.post("mutation", body)

    assert unknown["errorData"]["code"] == "VIDEO_NOT_FOUND"
    assert known["value"]["status"] == "success"
    assert (await convex.video())["status"] == "Completed"
