"""Arguments of the Convex functions: never null, never infinite, times in milliseconds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.job import Job, State
from gateway.core.webhook import WebhookStatus
from gateway.delivery.convex_document import (
    MAX_STAGES,
    STAGE_CHARACTERS,
    TEXT_CHARACTERS,
    analytics_arguments,
    progress_arguments,
    result_urls,
    webhook_arguments,
)
from tests.support.delivery import make_webhook

AT = 1_767_225_600.5
BARE = Job(
    id="j1",
    incarnation="01K",
    owner="acme",
    upstream="u1",
    state=State.QUEUED,
    created_at=AT,
    observed_at=AT,
    sequence=1,
)
FULL = replace(
    BARE,
    state=State.RUNNING,
    sequence=5,
    subject="v1",
    observed_at=AT + 10,
    stage="Transcribing",
    percentage=42.0,
    stages_completed=3,
    total_stages=7,
    eta_seconds=120.0,
    running_since=AT + 1,
    stage_seconds={"Queued": 1.0, "Downloading": 5.5},
    retry_count=2,
    webhook_urls=("https://example.com/hook",),
    webhook_events=("job.*",),
)
FAILED = replace(
    FULL,
    state=State.FAILED,
    finished_at=AT + 20,
    eta_seconds=0.0,
    error={
        "error_type": "external_service_error",
        "error_code": "DEEPGRAM_DOWN",
        "is_retryable": True,
        "support_reference": "ERR-1",
        "error_message": "boom",
    },
)


def test_running_job_says_everything_that_is_known() -> None:
    assert progress_arguments(FULL) == {
        "jobId": "j1",
        "incarnation": "01K",
        "sequence": 5,
        "status": "running",
        "videoId": "v1",
        "owner": "acme",
        "createdAt": 1_767_225_600_500,
        "currentStage": "Transcribing",
        "progressPercentage": 42.0,
        "estimatedCompletionSeconds": 120.0,
        "estimatedCompletionTime": 1_767_225_730_500,
        "stagesCompleted": 3,
        "totalStages": 7,
        "processingStartedAt": 1_767_225_601_500,
        "lastProgressUpdate": 1_767_225_610_500,
        "retryCount": 2,
        "webhookUrls": ["https://example.com/hook"],
        "webhookEvents": ["job.*"],
    }


def test_what_is_unknown_is_left_out() -> None:
    assert set(progress_arguments(BARE)) == {
        "jobId",
        "incarnation",
        "sequence",
        "status",
        "owner",
        "createdAt",
        "lastProgressUpdate",
        "retryCount",
    }


def test_failed_job_says_why_and_when() -> None:
    arguments = progress_arguments(FAILED)
    expected = {
        "status": "failed",
        "errorType": "external_service_error",
        "errorCode": "DEEPGRAM_DOWN",
        "isRetryable": True,
        "supportReference": "ERR-1",
        "processingCompletedAt": 1_767_225_620_500,
        "lastProgressUpdate": 1_767_225_620_500,
        "estimatedCompletionSeconds": 0.0,
        "estimatedCompletionTime": 1_767_225_620_500,
    }
    assert {name: arguments[name] for name in expected} == expected


def test_analytics_are_durations_in_seconds() -> None:
    assert analytics_arguments(FAILED) == {
        "jobId": "j1",
        "incarnation": "01K",
        "sequence": 5,
        "status": "failed",
        "videoId": "v1",
        "owner": "acme",
        "stages": [
            {"stage": "Queued", "seconds": 1.0},
            {"stage": "Downloading", "seconds": 5.5},
        ],
        "queuedSeconds": 1.0,
        "processingSeconds": 19.0,
        "totalSeconds": 20.0,
        "stagesCompleted": 3,
        "totalStages": 7,
        "retryCount": 2,
        "errorCount": 1,
        "errorType": "external_service_error",
        "errorCode": "DEEPGRAM_DOWN",
        "createdAt": 1_767_225_600_500,
        "finishedAt": 1_767_225_620_500,
    }


def test_upstreams_text_and_lists_are_bounded() -> None:
    long = "x" * 5000
    stages = {f"{long}{number}": 1.0 for number in range(2 * MAX_STAGES)}
    job = replace(
        FAILED, stage=long, stage_seconds=stages, error={"error_type": long, "error_code": 7}
    )
    arguments, analytics = progress_arguments(job), analytics_arguments(job)
    assert len(arguments["currentStage"]) == len(arguments["errorType"]) == TEXT_CHARACTERS
    assert "errorCode" not in arguments
    assert len(analytics["stages"]) == MAX_STAGES
    assert all(len(each["stage"]) == STAGE_CHARACTERS for each in analytics["stages"])


def test_result_urls_are_texts_under_names_convex_takes() -> None:
    results = {
        "video_url": "https://v",
        "transcriptUrl": "https://t",
        "audio_url": None,
        "chat_url": "",
        "analysis_url": 7,
        "highlights_count": "3",
        "_hidden_url": "https://h",
        "$x_url": "https://x",
        "ä_url": "https://a",
    }
    job = replace(FULL, results=results)
    assert result_urls(job) == {"video_url": "https://v", "transcriptUrl": "https://t"}
    assert progress_arguments(job)["resultUrls"] == result_urls(job)


@pytest.mark.parametrize("results", [None, [], "text", 7])
def test_results_that_are_no_object_link_to_nothing(results: object) -> None:
    assert result_urls(replace(FULL, results=results)) == {}


def test_webhook_is_copied_without_its_secrets_and_headers() -> None:
    webhook = make_webhook(
        revision=4,
        headers={"Authorization": "hidden"},
        previous_secret="hidden",
        status=WebhookStatus.PAUSED,
        filter="data.progress",
        fields=("job_id",),
        max_retries=0,
        created_at=AT,
        updated_at=AT,
    )
    assert webhook_arguments(webhook) == {
        "webhookId": "wh_1",
        "revision": 4,
        "owner": "acme",
        "url": "https://example.com/hook",
        "events": ["job.*"],
        "status": "paused",
        "filter": "data.progress",
        "fields": ["job_id"],
        "maxRetries": 0,
        "createdAt": 1_767_225_600_500,
        "updatedAt": 1_767_225_600_500,
    }


def test_deletion_is_one_more_revision() -> None:
    assert webhook_arguments(make_webhook(revision=4), deleted=True) == {
        "webhookId": "wh_1",
        "revision": 5,
        "owner": "acme",
        "deleted": True,
    }


def test_url_of_a_webhook_goes_without_the_query_where_tokens_are() -> None:
    url = "https://example.com/hook?token=hidden#part"
    arguments = webhook_arguments(make_webhook(url=url))
    job = progress_arguments(replace(FULL, webhook_urls=(url, "https://example.com/")))
    assert arguments["url"] == "https://example.com/hook"
    assert job["webhookUrls"] == ["https://example.com/hook", "https://example.com/"]


@pytest.mark.parametrize(
    ("job", "expected"),
    [(FAILED, 1), (replace(FULL, state=State.COMPLETED), 0), (replace(FAILED, error=None), 1)],
)
def test_analytics_count_the_error_that_ended_the_job(job: Job, expected: int) -> None:
    assert analytics_arguments(job)["errorCount"] == expected


def test_greatest_documents_fit_into_convex() -> None:
    """1 MiB as Convex measures it: UTF-8, and at most 4 bytes a character."""
    text = "\U0001f3ac" * 100_000
    job = replace(
        FAILED,
        stage=text,
        results={f"a{n}_url": text[:8192] for n in range(200)},
        error={"error_type": text, "error_code": text, "support_reference": text},
        stage_seconds={f"{n}{text}": 1.0 for n in range(MAX_STAGES + 1)},
        webhook_urls=tuple("https://example.com/" + "x" * 2000 for _ in range(1000)),
    )
    assert len(progress_arguments(job)["resultUrls"]) == 25
    for arguments in (progress_arguments(job), analytics_arguments(job)):
        assert len(json.dumps(arguments, ensure_ascii=False).encode()) < 2**20


NUMBERS = st.none() | st.floats() | st.integers(-(10**30), 10**30)
TIMES = st.none() | st.floats(0, 1e300)


@given(
    percentage=NUMBERS,
    eta=NUMBERS,
    completed=NUMBERS,
    running_since=TIMES,
    finished_at=TIMES,
    error=st.none() | st.dictionaries(st.sampled_from(["error_type", "is_retryable"]), st.none()),
)
def test_arguments_hold_no_null_and_no_number_that_json_lacks(
    percentage: Any, eta: Any, completed: Any, running_since: Any, finished_at: Any, error: Any
) -> None:
    job = replace(
        FULL,
        percentage=percentage,
        eta_seconds=eta,
        stages_completed=completed,
        running_since=running_since,
        finished_at=finished_at,
        error=error,
    )
    for arguments in (progress_arguments(job), analytics_arguments(job)):
        json.dumps(arguments, allow_nan=False)
        assert None not in arguments.values()
        numbers = [value for value in arguments.values() if isinstance(value, int | float)]
        assert all(math.isfinite(number) for number in numbers)
