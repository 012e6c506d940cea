"""What an observation changes of a job: the one table of transitions between its states.

States only ever rise in rank; a terminal state never changes. Observations may come late, twice or
out of order: they are ordered by the state's rank, then by when they were asked for (polls) or
received (streams). Upstream clocks are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from gateway.core.job import EventType, Job, JobChange, JobEvent, Observation, State, percentage

_T = TypeVar("_T")
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
