"""The bodies of the API's answers, field by field as the recorded samples have them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from examples.analysis_api.job import COMPLETED, FAILED, STAGE_SECONDS, STAGES, Job, Moment, Stage
from examples.analysis_api.result import detail_results, source_urls, stream_results

VERSION = "2.0.0"
FIXED_TIMESTAMP = "2024-01-15T10:30:00Z"  # health and validation answers always say this
HEALTH = {"status": "healthy", "timestamp": FIXED_TIMESTAMP, "version": VERSION}
QUEUE_UNAVAILABLE = {"detail": "Queue manager not available"}

# Two figures for one thing: creations and details say 7, statuses and streams say 5.
TOTAL_STAGES_LONG = 7
TOTAL_STAGES_SHORT = 5

Body = dict[str, Any]


def compact(body: Any) -> str:
    """JSON without spaces, as the API's answers are written."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def timestamp(at: float) -> str:
    """`at`, in epoch seconds, as ISO 8601 without a zone: the API means UTC and does not say so."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def _figures(stage: Stage, total_stages: int) -> Body:
    return {
        "percentage": stage.percentage,
        "current_stage": stage.name,
        "stages_completed": stage.stages_completed,
        "total_stages": total_stages,
        "estimated_completion_seconds": stage.eta_seconds,
    }


def _progress(job: Job, shown: Moment, total_stages: int) -> Body:
    stage = shown.stage
    expected = timestamp(job.updated_at(shown) + stage.eta_seconds)
    return _figures(stage, total_stages) | {
        "percentage": float(stage.percentage),
        "estimated_completion_time": None if stage is STAGES[0] else expected,
        "stage_progress": {},
    }


def _error(shown: Moment) -> Body | None:
    if shown.error is None:
        return None
    return {**shown.error, "retry_after_seconds": None}


def creation(job: Job, now: float, queue_position: int) -> Body:
    """The answer to a creation: the job as queued, and where to ask for it."""
    stage = STAGES[0]
    base = f"/api/v1/analysis/{job.job_id}"
    return {
        "status": "success",
        "message": "Analysis started successfully and added to processing queue",
        "timestamp": timestamp(now),
        "job_id": job.job_id,
        "video_id": job.video_id,
        "progress": _figures(stage, TOTAL_STAGES_LONG)
        | {
            "estimated_completion_time": timestamp(now + stage.eta_seconds),
            "stage_progress": {
                "queue_position": float(queue_position),
                "estimated_wait_time_ms": 3600000.0,
            },
        },
        "results": None,
        "error": None,
        "metadata": {
            "api_version": VERSION,
            "status_url": f"{base}/status",
            "stream_url": f"{base}/stream",
            "convex_video_id": {"status": "success", "value": "vid1", "logLines": []},
            "team_id": "js7bj9zgdkyj9ykvr4m6jarxkh7ep9fa",
            "queue_position": queue_position,
            "expected_urls": source_urls(job.video_id),
            "transcription_config": dict(job.transcription_config),
        },
    }


def legacy_creation(job: Job) -> Body:
    """The answer to the creation route that old clients use."""
    return {
        "status": "accepted",
        "message": "Pipeline started",
        "job_id": job.job_id,
        "video_id": job.video_id,
        "status_url": f"/api/v1/analysis/{job.job_id}/status",
    }


def status(job: Job, shown: Moment) -> Body:
    """The short form of a job: no results, and the stage in `status`."""
    return {
        "job_id": job.job_id,
        "video_id": job.video_id,
        "status": shown.stage.name,
        "progress": _progress(job, shown, TOTAL_STAGES_SHORT),
        "created_at": timestamp(job.created_at),
        "updated_at": timestamp(job.updated_at(shown)),
        "error": _error(shown),
    }


def details(job: Job, shown: Moment, now: float) -> Body:
    """The long form of a job: with results, and `success` in `status` unless it failed."""
    return {
        "status": "failed" if shown.stage is FAILED else "success",
        "message": shown.message,
        "timestamp": timestamp(now),
        "job_id": job.job_id,
        "video_id": job.video_id,
        "progress": _progress(job, shown, TOTAL_STAGES_LONG),
        "results": detail_results() if shown.stage is COMPLETED else None,
        "error": _error(shown),
        "metadata": {
            "created_at": timestamp(job.created_at),
            "updated_at": timestamp(job.updated_at(shown)),
            "api_version": VERSION,
        },
    }


def listing(jobs: Sequence[tuple[Job, Moment]], now: float) -> Body:
    """Every job, its progress a bare number."""
    return {
        "status": "success",
        "message": f"Found {len(jobs)} jobs",
        "jobs": [
            {
                "job_id": job.job_id,
                "video_id": job.video_id,
                "status": shown.stage.name,
                "progress": shown.stage.percentage,
                "created_at": timestamp(job.created_at),
                "updated_at": timestamp(job.updated_at(shown)),
            }
            for job, shown in jobs
        ],
        "timestamp": timestamp(now),
    }


def removal(job_id: str, now: float) -> Body:
    """The answer to a cancellation."""
    message = f"Job {job_id} removed from queue"
    return {"status": "success", "message": message, "timestamp": timestamp(now)}


def nothing_to_remove(job_id: str) -> Body:
    """The 404 to a cancellation, shaped unlike the other routes' 404."""
    return {"detail": f"Job {job_id} not found in queue"}


def _support_reference(now: float, number: int) -> str:
    """When an error was answered, and the number of its kind."""
    return datetime.fromtimestamp(now, UTC).strftime(f"ERR-%Y%m%d-%H%M%S-{number:03}")


def job_not_found(job_id: str, now: float) -> Body:
    """The 404 for a job that the API does not know, or no longer."""
    return _failure(
        "Analysis job not found",
        {
            "error_type": "unknown_error",
            "error_code": "JOB_NOT_FOUND",
            "error_message": f"No analysis job found with ID: {job_id}",
            "error_details": "The job may have expired or the ID is incorrect",
            "is_retryable": False,
            "suggested_action": "Please check the job ID and try again",
            "support_reference": _support_reference(now, 4),
        },
    )


def invalid_url(url: str, now: float) -> Body:
    """The 400 for a URL that is not one of a Twitch recording."""
    return _failure(
        "Invalid Twitch URL format",
        {
            "error_type": "invalid_video_url",
            "error_code": "INVALID_URL_FORMAT",
            "error_message": "The provided URL is not a valid Twitch VOD URL",
            "error_details": "URL must match pattern: https://www.twitch.tv/videos/{video_id}. "
            f"Error: Invalid Twitch VOD URL: {url}",
            "is_retryable": False,
            "suggested_action": "Please provide a valid Twitch VOD URL and try again",
            "support_reference": _support_reference(now, 1),
        },
    )


def _failure(message: str, error: Body) -> Body:
    return {"detail": {"status": "failed", "message": message, "error": error}}


def validation_failure(
    errors: Sequence[Body], method: str, url: str, headers: Mapping[str, str]
) -> Body:
    """The 422, which repeats to the client every header that arrived with the request."""
    return {
        "status": "validation_error",
        "message": "Request validation failed",
        "errors": list(errors),
        "timestamp": FIXED_TIMESTAMP,
        "request_info": {"method": method, "url": url, "headers": dict(headers)},
    }


def stream_update(job: Job, shown: Moment, now: float, connection_id: str, count: int) -> Body:
    """The data of a `progress`, `completed` or `failed` event; `count` is of updates before it."""
    elapsed = now - job.created_at
    body: Body = {
        "event": {COMPLETED: "completed", FAILED: "failed"}.get(shown.stage, "progress"),
        "job_id": job.job_id,
        "video_id": job.video_id,
        "status": shown.stage.name,
        "progress": _figures(shown.stage, TOTAL_STAGES_SHORT) | {"stage_progress": {}},
        "message": shown.message,
        "timestamp": timestamp(now),
        "connection_id": connection_id,
        "update_count": count,
        "processing_time_seconds": round(elapsed, 6),
    }
    if shown.stage is not STAGES[0]:  # processing has begun
        body["processing_duration"] = round(elapsed - STAGE_SECONDS / job.speed, 6)
    if shown.stage is COMPLETED:
        body["results"] = stream_results(job.video_id)
    if shown.error is not None:
        body["error"] = dict(shown.error)
    return body
