"""The simulated job: what it shows depends on the elapsed seconds and on its video id alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STAGE_SECONDS = 2.0


@dataclass(frozen=True)
class Stage:
    """A stage of the analysis, with the figures that the API shows while in it."""

    name: str
    percentage: float
    stages_completed: int
    eta_seconds: int


STAGES = (
    Stage("Queued", 0.0, 0, 3),
    Stage("Downloading", 10, 1, 5),
    Stage("Generating waveform", 25, 2, 8),
    Stage("Transcribing", 40, 3, 7),
    Stage("Fetching chat", 55, 4, 5),
    Stage("Analyzing", 70, 5, 4),
    Stage("Finding highlights", 90, 6, 1),
)
COMPLETED = Stage("Completed", 100.0, 7, 0)
FAILED = Stage("Failed", 90, 6, 1)  # keeps the figures of the stage it failed in
TOTAL_SECONDS = STAGE_SECONDS * len(STAGES)

# The last digits of a video id choose the job's fate.
ERRORS: Mapping[str, Mapping[str, Any]] = {
    "13": {
        "error_type": "external_service_error",
        "error_code": "DEEPGRAM_DOWN",
        "error_message": "boom",
        "error_details": "d",
        "is_retryable": True,
        "suggested_action": "retry",
        "support_reference": "ERR-1",
    },
    "14": {
        "error_type": "video_too_large",
        "error_code": "VIDEO_TOO_LARGE",
        "error_message": "The video is too long to be analyzed",
        "error_details": "No highlights can be found in a video of more than 48 hours",
        "is_retryable": False,
        "suggested_action": "Analyze a shorter video",
        "support_reference": "ERR-2",
    },
}


@dataclass(frozen=True)
class Moment:
    """What a job shows at one time. `since_seconds` counts from its creation, in job time."""

    stage: Stage
    since_seconds: float
    message: str
    error: Mapping[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more."""
        return self.stage in (COMPLETED, FAILED)


def moment(video_id: str, elapsed_seconds: float) -> Moment:
    """What the job of `video_id` shows `elapsed_seconds` of job time after its creation."""
    index = int(max(elapsed_seconds, 0.0) / STAGE_SECONDS)
    if index < len(STAGES):
        stage = STAGES[index]
        return Moment(stage, index * STAGE_SECONDS, f"Processing: {stage.name}")
    error = ERRORS.get(video_id[-2:])
    # The API leaves the last working stage's message in place when a job ends.
    message = f"Processing: {STAGES[-1].name}"
    return Moment(FAILED if error else COMPLETED, TOTAL_SECONDS, message, error)


@dataclass(frozen=True)
class Job:
    """A created job. `created_at` is in epoch seconds; `speed` is job seconds a wall second."""

    job_id: str
    video_id: str
    created_at: float
    speed: float
    transcription_config: Mapping[str, Any]

    def at(self, now: float) -> Moment:
        """What the job shows at `now`, in epoch seconds."""
        return moment(self.video_id, (now - self.created_at) * self.speed)

    def updated_at(self, shown: Moment) -> float:
        """When the job came to show `shown`, in epoch seconds."""
        return self.created_at + shown.since_seconds / self.speed
