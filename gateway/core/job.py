"""A job, what is observed of it, and what an observation changes; times are epoch seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.core.message import Response


class State(StrEnum):
    """Where a job stands, whatever words its upstream uses."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """True when nothing can follow."""
        return self not in (State.QUEUED, State.RUNNING)

    @property
    def rank(self) -> int:
        """0 queued, 1 running, 2 terminal; never falls."""
        return 2 if self.terminal else int(self is State.RUNNING)


class EventType(StrEnum):
    """What subscribers are told."""

    STARTED = "job.started"
    STAGE_CHANGED = "job.stage_changed"
    PROGRESS = "job.progress"
    COMPLETED = "job.completed"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"

    @property
    def terminal(self) -> bool:
        """True for the one event that ends a job."""
        return self in _TERMINAL_EVENTS


_TERMINAL_EVENTS = frozenset({EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED})


@dataclass(frozen=True, slots=True)
class Observation:
    """What one answer of the upstream said of one job, in our terms.

    `at` is epoch seconds: when it was asked for (polls), or received (streams). `found` is False
    when the upstream said that it knows no such job; nothing else is then set. Absent fields are
    None. `corrected` names what the answer said that cannot be. `answer` is the whole of a status,
    as clients may be given it too.
    """

    job_id: str
    at: float
    found: bool = True
    state: State = State.RUNNING
    stage: str | None = None
    percentage: float | None = None
    stages_completed: int | None = None
    total_stages: int | None = None
    eta_seconds: float | None = None
    subject: str | None = None
    created_at: float | None = None
    error: Mapping[str, Any] | None = None
    results: Any = None
    corrected: str | None = None
    answer: Response | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Job:
    """One job as the gateway knows it; times are epoch seconds.

    `version` counts recorded changes (a record on another version is refused); `sequence` is the
    last event's. `incarnation` sorts by when the gateway first saw the job, and is new when its
    store was lost. `upstream` is the instance that alone can observe it. `reported_percentage` is
    what the last event said. `lost_since` is when the upstream first denied knowing it. `key` is
    the lineage of the API key it was created with; None without one.
    """

    id: str
    incarnation: str
    owner: str
    upstream: str
    state: State
    created_at: float
    observed_at: float
    version: int = 0
    sequence: int = 0
    subject: str | None = None
    stage: str | None = None
    percentage: float | None = None
    reported_percentage: float | None = None
    stages_completed: int | None = None
    total_stages: int | None = None
    eta_seconds: float | None = None
    running_since: float | None = None
    stage_since: float | None = None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    finished_at: float | None = None
    lost_since: float | None = None
    error: Mapping[str, Any] | None = None
    results: Any = None
    retry_count: int = 0
    webhook_urls: tuple[str, ...] = ()
    webhook_events: tuple[str, ...] = ()
    request_id: str | None = None
    key: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One entry of a job's timeline; `sequence` has no gaps within the job."""

    type: EventType
    sequence: int
    at: float
    previous_state: State | None


@dataclass(frozen=True, slots=True)
class JobChange:
    """What one observation changes. Without `events` there is nothing worth recording durably.

    `answer` is the observation's own.
    """

    before: Job | None
    job: Job
    events: tuple[JobEvent, ...] = ()
    answer: Response | None = field(default=None, compare=False, repr=False)

    @property
    def worth_recording(self) -> bool:
        """True when the store must know: an event, another state, or being lost or found again."""
        before, after = self.before, self.job
        if before is None or self.events:
            return True
        return before.state is not after.state or before.lost_since != after.lost_since


def percentage(value: object) -> float | None:
    """A percentage within 0 to 100; None for anything that is not a finite number."""
    number = finite(value)
    return None if number is None else min(100.0, max(0.0, number))


def finite(value: object) -> float | None:
    """A finite float, or None: JSON booleans, NaN and infinities are not numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
