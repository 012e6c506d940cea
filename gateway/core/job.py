"""A job, what is observed of it, and the one table of transitions between its states.

States only ever rise in rank; a terminal state never changes. Observations may come late, twice or
out of order: they are ordered by the state's rank, then by when they were asked for (polls) or
received (streams). Upstream clocks are never compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from gateway.core.message import Response

_T = TypeVar("_T")


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
_MOVED = (EventType.STAGE_CHANGED, EventType.PROGRESS)

# (state known, state observed) -> the events it may bring. A pair that is not here is refused: the
# observation is older than what is known. None stands for a job not seen before.
TRANSITIONS: Mapping[tuple[State | None, State], tuple[EventType, ...]] = {
    (None, State.QUEUED): (EventType.STARTED,),
    (None, State.RUNNING): (EventType.STARTED,),
    (None, State.COMPLETED): (EventType.STARTED, EventType.COMPLETED),
    (None, State.FAILED): (EventType.STARTED, EventType.FAILED),
    (None, State.CANCELLED): (EventType.STARTED, EventType.CANCELLED),
    (State.QUEUED, State.QUEUED): _MOVED,
    (State.QUEUED, State.RUNNING): _MOVED,
    (State.QUEUED, State.COMPLETED): (EventType.COMPLETED,),
    (State.QUEUED, State.FAILED): (EventType.FAILED,),
    (State.QUEUED, State.CANCELLED): (EventType.CANCELLED,),
    (State.RUNNING, State.RUNNING): _MOVED,
    (State.RUNNING, State.COMPLETED): (EventType.COMPLETED,),
    (State.RUNNING, State.FAILED): (EventType.FAILED,),
    (State.RUNNING, State.CANCELLED): (EventType.CANCELLED,),
}


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


@dataclass(frozen=True, slots=True)
class WatchRule:
    """How observations become events; from `jobs.watch`. Durations are seconds.

    `vanished` is how a job ends that the upstream denies knowing for `lost_after_seconds`.
    """

    progress_step: float = 1.0
    timeout_seconds: float = 3600.0
    lost_after_seconds: float = 60.0
    vanished: State = State.FAILED


def begin(job: Job, observation: Observation, now: float) -> JobChange:
    """The change that a job's first observation makes; `job` carries its identity and ownership."""
    first = _apply(replace(job, observed_at=observation.at), observation, now)
    change = _emit(None, first, TRANSITIONS[None, observation.state], now)
    return replace(change, answer=observation.answer)


def advance(job: Job, observation: Observation, now: float, rule: WatchRule) -> JobChange | None:
    """The change that `observation` makes to `job`; None when it is stale, repeated or too late."""
    if job.state.terminal:
        return None
    if not observation.found:
        return _missing(job, observation, now, rule)
    allowed = TRANSITIONS.get((job.state, observation.state))
    same_rank = observation.state.rank == job.state.rank
    if allowed is None or (same_rank and observation.at < job.observed_at):
        return None
    after = _apply(replace(job, lost_since=None), observation, now)
    change = _emit(job, after, tuple(e for e in allowed if _due(e, job, after, rule)), now)
    return replace(change, answer=observation.answer)


def expire(job: Job, now: float, rule: WatchRule) -> JobChange | None:
    """The change that mere time makes: a job that runs for longer than it may has failed."""
    if job.state is not State.RUNNING or job.running_since is None:
        return None
    if now - job.running_since < rule.timeout_seconds:
        return None
    return _fail(
        job,
        now,
        error_type="processing_timeout",
        message=f"The job ran for longer than {rule.timeout_seconds:g} s.",
    )


def abandon(job: Job, now: float) -> JobChange | None:
    """The change when the upstream instance that alone could observe the job is gone."""
    if job.state.terminal:
        return None
    return _fail(
        job,
        now,
        error_type="job_lost",
        message="The upstream instance that ran this job is gone, and the gateway beside it.",
    )


def retry_count(previous: Job | None) -> int:
    """How many creations for the same subject followed a retryable failure."""
    if previous is None or previous.state is not State.FAILED or not previous.error:
        return 0
    return previous.retry_count + 1 if previous.error.get("is_retryable") is True else 0


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


def _missing(job: Job, observation: Observation, now: float, rule: WatchRule) -> JobChange | None:
    if observation.at < job.observed_at:
        return None
    if job.lost_since is None:
        lost = replace(job, lost_since=observation.at, observed_at=observation.at)
        return JobChange(job, lost)
    if observation.at - job.lost_since < rule.lost_after_seconds:
        return None
    if rule.vanished is State.CANCELLED:
        gone = _apply(job, Observation(job.id, now, state=State.CANCELLED), now)
        return _emit(job, gone, TRANSITIONS[job.state, State.CANCELLED], now)
    return _fail(
        job,
        now,
        error_type="job_lost",
        message="The upstream no longer knows this job; it was probably restarted.",
    )


def _fail(job: Job, now: float, *, error_type: str, message: str) -> JobChange:
    error = {
        "error_type": error_type,
        "error_code": error_type.upper(),
        "error_message": message,
        "is_retryable": True,
    }
    observation = Observation(job.id, now, state=State.FAILED, stage=job.stage, error=error)
    after = _apply(job, observation, now)
    return _emit(job, after, TRANSITIONS[job.state, State.FAILED], now)


def _apply(job: Job, seen: Observation, now: float) -> Job:
    """`job` with the observation's fields over it, clamped to what is possible."""
    moved = seen.stage is not None and seen.stage != job.stage
    stage_seconds = dict(job.stage_seconds)
    ended = seen.state.terminal
    if job.stage is not None and job.stage_since is not None and (moved or ended):
        spent = max(0.0, now - job.stage_since)
        stage_seconds[job.stage] = stage_seconds.get(job.stage, 0.0) + spent
    done = percentage(seen.percentage)
    if done is None:
        done = 100.0 if seen.state is State.COMPLETED else job.percentage
    elif not moved and job.percentage is not None:
        done = max(done, job.percentage)
    total = _known(seen.total_stages, job.total_stages)
    completed = _known(seen.stages_completed, job.stages_completed)
    if completed is not None:
        completed = max(0, completed if total is None else min(completed, total))
    running_since = job.running_since
    if running_since is None and seen.state is State.RUNNING:
        running_since = now
    return replace(
        job,
        state=seen.state,
        observed_at=max(seen.at, job.observed_at),
        subject=_known(seen.subject, job.subject),
        stage=_known(seen.stage, job.stage),
        percentage=done,
        stages_completed=completed,
        total_stages=total,
        eta_seconds=0.0 if ended else _known(seen.eta_seconds, job.eta_seconds),
        running_since=running_since,
        stage_since=now if moved or job.stage_since is None else job.stage_since,
        stage_seconds=stage_seconds,
        finished_at=now if ended else None,
        error=_known(seen.error, job.error),
        results=_known(seen.results, job.results),
    )


def _due(event: EventType, before: Job, after: Job, rule: WatchRule) -> bool:
    if event is EventType.STAGE_CHANGED:
        return after.stage != before.stage
    if event is EventType.PROGRESS:
        return after.stage != before.stage or _progressed(after, rule)
    return True


def _progressed(job: Job, rule: WatchRule) -> bool:
    if job.percentage is None:
        return False
    if job.reported_percentage is None:
        return True
    return abs(job.percentage - job.reported_percentage) >= rule.progress_step


def _emit(before: Job | None, after: Job, types: tuple[EventType, ...], now: float) -> JobChange:
    previous = before.state if before else None
    first = after.sequence + 1
    events = tuple(
        JobEvent(kind, sequence, now, previous) for sequence, kind in enumerate(types, start=first)
    )
    reported = after.percentage if events else after.reported_percentage
    job = replace(after, sequence=after.sequence + len(events), reported_percentage=reported)
    return JobChange(before, job, events)


def _known(new: _T | None, old: _T | None) -> _T | None:
    return old if new is None else new
