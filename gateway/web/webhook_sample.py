"""Events that never happened: the catalogue's samples, and what a test delivery carries."""

from __future__ import annotations

from typing import Any

from gateway.core.event import envelope
from gateway.core.job import EventType, Job, JobEvent, State

TEST_EVENT = "webhook.test"
SAMPLE_AT = 1767225600.0  # 2026-01-01T00:00:00Z
SAMPLE_JOB = "job_sample"

DESCRIPTIONS = {
    EventType.STARTED: "The job was accepted.",
    EventType.STAGE_CHANGED: "The job entered another stage.",
    EventType.PROGRESS: "The percentage moved by at least the configured step.",
    EventType.COMPLETED: "The job ended well; data.results holds what it found.",
    EventType.FAILED: "The job ended badly; data.error says why.",
    EventType.CANCELLED: "The job was cancelled.",
}
# event -> (sequence, state, previous state, stage, percentage, stages completed)
_SAMPLES = {
    EventType.STARTED: (1, State.QUEUED, None, "Queued", 0.0, 0),
    EventType.STAGE_CHANGED: (2, State.RUNNING, State.QUEUED, "Downloading", 5.0, 1),
    EventType.PROGRESS: (3, State.RUNNING, State.RUNNING, "Transcribing", 42.0, 3),
    EventType.COMPLETED: (4, State.COMPLETED, State.RUNNING, "Completed", 100.0, 7),
    EventType.FAILED: (4, State.FAILED, State.RUNNING, "Failed", 42.0, 3),
    EventType.CANCELLED: (4, State.CANCELLED, State.RUNNING, "Transcribing", 42.0, 3),
}
_ERROR = {
    "error_type": "processing_error",
    "error_code": "PROCESSING_ERROR",
    "error_message": "The audio could not be decoded.",
    "is_retryable": True,
}


def sample(
    kind: EventType, *, at: float = SAMPLE_AT, job_id: str = SAMPLE_JOB, incarnation: str = "sample"
) -> dict[str, Any]:
    """An envelope as this event's would look; its id derives from the other arguments."""
    sequence, state, previous, stage, percentage, completed = _SAMPLES[kind]
    job = Job(
        id=job_id,
        incarnation=incarnation,
        owner="sample",
        upstream="sample",
        state=state,
        created_at=at,
        observed_at=at,
        subject="2345678901",
        stage=stage,
        percentage=percentage,
        stages_completed=completed,
        total_stages=7,
        eta_seconds=0.0 if state.terminal else 120.0,
        error=_ERROR if kind is EventType.FAILED else None,
        results={"highlights": []} if kind is EventType.COMPLETED else None,
    )
    status_url = f"/api/v1/analysis/{job_id}/status"
    return envelope(job, JobEvent(kind, sequence, at, previous), status_url)


def probe_envelope(kind: EventType | None, *, at: float, job_id: str) -> dict[str, Any]:
    """What a test delivery carries: this event's sample, or `webhook.test` of the same shape."""
    document = sample(kind or EventType.STARTED, at=at, job_id=job_id, incarnation=job_id)
    return document if kind else {**document, "type": TEST_EVENT}


def catalogue() -> dict[str, Any]:
    """Every event a webhook can ask for, with a sample of each."""
    return {
        "events": [
            {"type": kind.value, "description": text, "sample": sample(kind)}
            for kind, text in DESCRIPTIONS.items()
        ]
    }


DATA_FIELDS = frozenset(sample(EventType.STARTED)["data"])
