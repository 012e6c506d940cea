"""The envelope that subscribers receive: one job event as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from gateway.core.identifier import derived
from gateway.core.job import Job, JobEvent

API_VERSION = "1"


def rfc3339(at: float) -> str:
    """Epoch seconds as RFC 3339 in UTC with milliseconds."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def event_id(job: Job, event: JobEvent) -> str:
    """The event's `evt_` id, derived from what it is: no state beside the job's is needed."""
    return derived("evt_", event.at, job.incarnation, job.id, event.sequence)


def envelope(job: Job, event: JobEvent, status_url: str | None) -> dict[str, Any]:
    """The event as subscribers see it; fields of `data` are always present, null when unknown."""
    terminal = event.type.terminal
    return {
        "id": event_id(job, event),
        "type": event.type.value,
        "timestamp": rfc3339(event.at),
        "api_version": API_VERSION,
        "sequence": event.sequence,
        "data": {
            "job_id": job.id,
            "video_id": job.subject,
            "status": job.state.value,
            "previous_status": event.previous_state.value if event.previous_state else None,
            "stage": job.stage,
            "progress": job.percentage,
            "stages_completed": job.stages_completed,
            "total_stages": job.total_stages,
            "estimated_completion_seconds": job.eta_seconds,
            "error": job.error if terminal else None,
            "results": job.results if terminal else None,
            "status_url": status_url,
        },
    }


def serialize(document: object) -> bytes:
    """Compact JSON; serialised once, these bytes are stored, signed and sent."""
    return orjson.dumps(document)
