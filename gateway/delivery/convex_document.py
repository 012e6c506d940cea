"""The arguments of the Convex functions in `convex/`, built from a job or a webhook.

`v.optional` refuses null, so what is unknown is left out. Times are epoch milliseconds, numbers are
finite, and text that others chose is cut to a bounded length: a document holds 1 MiB. A webhook's
URL goes without its query, where receivers keep tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.core.job import Job, State, finite
from gateway.core.webhook import Webhook

TEXT_CHARACTERS = 1024
URL_CHARACTERS = 8192
MAX_STAGES = 500
STAGE_CHARACTERS = 256  # in the list of them all
MAX_URLS = 100
MAX_URLS_CHARACTERS = 200 * 1024  # of all of a job's URLs: at most 4 bytes each, well within 1 MiB
# What `video:updateUrls` takes; other names would have the whole call refused.
VIDEO_URLS = (
    "video_url",
    "audio_url",
    "waveform_url",
    "transcript_url",
    "transcriptWords_url",
    "chat_url",
    "analysis_url",
    "highlights_url",
    "audio_sentiment_url",
    "chat_sentiment_url",
)
_URL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}(?:_url|Url)")
_MAX_DATE_MILLISECONDS = 8.64e15  # the last instant a JavaScript date can hold

Arguments = dict[str, Any]


def progress_arguments(job: Job) -> Arguments:
    """Arguments of `jobs:updateProgress`: the job after its newest event."""
    seen_at = job.observed_at if job.finished_at is None else job.finished_at
    eta = finite(job.eta_seconds)
    return _present(
        {
            **_position(job),
            "createdAt": _milliseconds(job.created_at),
            "currentStage": _text(job.stage),
            "progressPercentage": finite(job.percentage),
            "estimatedCompletionSeconds": eta,
            "estimatedCompletionTime": None if eta is None else _milliseconds(seen_at + eta),
            "stagesCompleted": finite(job.stages_completed),
            "totalStages": finite(job.total_stages),
            "processingStartedAt": _milliseconds(job.running_since),
            "processingCompletedAt": _milliseconds(job.finished_at),
            "lastProgressUpdate": _milliseconds(seen_at),
            **_error(job),
            "isRetryable": _flag((job.error or {}).get("is_retryable")),
            "supportReference": _text((job.error or {}).get("support_reference")),
            "retryCount": job.retry_count,
            "webhookUrls": [shown_url(url) for url in job.webhook_urls[:MAX_URLS]] or None,
            "webhookEvents": list(job.webhook_events) or None,
            "resultUrls": result_urls(job) or None,
        }
    )


def analytics_arguments(job: Job) -> Arguments:
    """Arguments of `jobs:trackAnalytics`: what a finished job took, in seconds."""
    stages = list(job.stage_seconds.items())[:MAX_STAGES]
    return _present(
        {
            **_position(job),
            "stages": [
                {"stage": stage[:STAGE_CHARACTERS], "seconds": seconds} for stage, seconds in stages
            ],
            "queuedSeconds": _elapsed(job.created_at, job.running_since),
            "processingSeconds": _elapsed(job.running_since, job.finished_at),
            "totalSeconds": _elapsed(job.created_at, job.finished_at),
            "stagesCompleted": finite(job.stages_completed),
            "totalStages": finite(job.total_stages),
            "retryCount": job.retry_count,
            "errorCount": int(job.error is not None or job.state is State.FAILED),
            **_error(job),
            "createdAt": _milliseconds(job.created_at),
            "finishedAt": _milliseconds(job.finished_at),
        }
    )


def webhook_arguments(webhook: Webhook, *, deleted: bool = False) -> Arguments:
    """Arguments of `webhooks:storeConfig`; neither the secret nor the headers are among them.

    A deletion counts as one more revision.
    """
    if deleted:
        return {
            "webhookId": webhook.id,
            "revision": webhook.revision + 1,
            "owner": webhook.owner,
            "deleted": True,
        }
    return _present(
        {
            "webhookId": webhook.id,
            "revision": webhook.revision,
            "owner": webhook.owner,
            "url": shown_url(webhook.url),
            "events": list(webhook.events),
            "jobId": webhook.job_id,
            "status": webhook.status.value,
            "disabledReason": webhook.disabled_reason,
            "description": webhook.description,
            "filter": webhook.filter,
            "fields": None if webhook.fields is None else list(webhook.fields),
            "timeoutSeconds": webhook.timeout_seconds,
            "maxRetries": webhook.max_retries,
            "maxPerSecond": webhook.max_per_second,
            "createdAt": _milliseconds(webhook.created_at),
            "updatedAt": _milliseconds(webhook.updated_at),
        }
    )


def status_arguments(job: Job) -> Arguments:
    """Arguments of `video:updateStatusByTwitchId`, which the web app already has."""
    return {"twitchId": job.subject, "status": job.state.value}


def url_arguments(job: Job) -> Arguments:
    """Arguments of `video:updateUrls`, which the web app already has."""
    urls = result_urls(job)
    return {
        "twitchId": job.subject,
        "urls": {name: urls[name] for name in VIDEO_URLS if name in urls},
    }


def result_urls(job: Job) -> dict[str, str]:
    """What the job's results link to, under the upstream's own names; the first, if it is a lot."""
    if not isinstance(job.results, Mapping):
        return {}
    urls: dict[str, str] = {}
    room = MAX_URLS_CHARACTERS
    for name, url in job.results.items():
        if not (_URL_NAME.fullmatch(name) and isinstance(url, str) and len(url) > 0):
            continue
        if len(url) <= min(URL_CHARACTERS, room) and len(urls) < MAX_URLS:
            urls[name] = url
            room -= len(url)
    return urls


def shown_url(url: str) -> str:
    """A webhook's URL as others may see it: what follows its path can be a secret."""
    return url.partition("?")[0].partition("#")[0]


def _position(job: Job) -> Arguments:
    """Which job, and how new this is: the functions ignore what is not newer."""
    return {
        "jobId": job.id,
        "incarnation": job.incarnation,
        "sequence": job.sequence,
        "status": job.state.value,
        "videoId": job.subject or None,
        "owner": job.owner or None,
    }


def _error(job: Job) -> Arguments:
    error = job.error or {}
    return {
        "errorType": _text(error.get("error_type")),
        "errorCode": _text(error.get("error_code")),
    }


def _present(arguments: Arguments) -> Arguments:
    return {name: value for name, value in arguments.items() if value is not None}


def _text(value: object) -> str | None:
    return value[:TEXT_CHARACTERS] if isinstance(value, str) and value else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _milliseconds(at: float | None) -> int | None:
    number = finite(None if at is None else at * 1000)
    if number is None or abs(number) > _MAX_DATE_MILLISECONDS:
        return None
    return round(number)


def _elapsed(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)
