"""States, the transitions between them, and the events that observations bring."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gateway.core.job import (
    EventType,
    Job,
    JobChange,
    JobEvent,
    Observation,
    State,
    finite,
    percentage,
)
from gateway.core.message import Response
from gateway.core.transition import TRANSITIONS, WatchRule, advance, begin, expire, retry_count

NOW = 1_000_000.0
RULE = WatchRule()
HUGE = 10**400
NAN = float("nan")
STARTED, STAGE, PROGRESS = EventType.STARTED, EventType.STAGE_CHANGED, EventType.PROGRESS


def observed(at: float = NOW, state: State = State.RUNNING, **fields: Any) -> Observation:
    return Observation("j1", at, state=state, **fields)


def missing(at: float) -> Observation:
    return Observation("j1", at, found=False)


def blank() -> Job:
    return Job(
        id="j1",
        incarnation="01J",
        owner="team",
        upstream="here",
        state=State.QUEUED,
        created_at=NOW,
        observed_at=NOW,
    )


def born(state: State = State.QUEUED, **fields: Any) -> Job:
    return begin(blank(), observed(NOW, state, **fields), NOW).job


def step(job: Job, observation: Observation, watch: WatchRule = RULE) -> JobChange:
    change = advance(job, observation, max(NOW, observation.at), watch)
    assert change is not None
    return change


def types(change: JobChange) -> list[EventType]:
    return [event.type for event in change.events]


@pytest.mark.parametrize(
    ("state", "events"),
    [
        (State.QUEUED, [STARTED]),
        (State.RUNNING, [STARTED]),
        (State.COMPLETED, [STARTED, EventType.COMPLETED]),
        (State.FAILED, [STARTED, EventType.FAILED]),
        (State.CANCELLED, [STARTED, EventType.CANCELLED]),
    ],
)
def test_first_observation_starts_a_job_whatever_it_shows(
    state: State, events: list[EventType]
) -> None:
    change = begin(blank(), observed(NOW, state), NOW)
    assert types(change) == events
    assert [event.sequence for event in change.events] == list(range(1, len(events) + 1))
    assert change.before is None
    assert change.job.state is state


@pytest.mark.parametrize(
    ("known", "seen", "events"),
    [
        (State.QUEUED, State.QUEUED, [STAGE, PROGRESS]),
        (State.QUEUED, State.RUNNING, [STAGE, PROGRESS]),
        (State.QUEUED, State.COMPLETED, [EventType.COMPLETED]),
        (State.QUEUED, State.FAILED, [EventType.FAILED]),
        (State.QUEUED, State.CANCELLED, [EventType.CANCELLED]),
        (State.RUNNING, State.RUNNING, [STAGE, PROGRESS]),
        (State.RUNNING, State.COMPLETED, [EventType.COMPLETED]),
        (State.RUNNING, State.FAILED, [EventType.FAILED]),
        (State.RUNNING, State.CANCELLED, [EventType.CANCELLED]),
    ],
)
def test_transition_brings_its_events(known: State, seen: State, events: list[EventType]) -> None:
    change = step(born(known, stage="a"), observed(NOW + 1, seen, stage="b", percentage=50))
    assert types(change) == events
    assert change.job.state is seen
    assert {event.previous_state for event in change.events} == {known}


@pytest.mark.parametrize("known", [State.COMPLETED, State.FAILED, State.CANCELLED])
@pytest.mark.parametrize("seen", list(State))
def test_ended_job_never_changes(known: State, seen: State) -> None:
    job = born(known)
    assert advance(job, observed(NOW + 9, seen, stage="z", percentage=1), NOW + 9, RULE) is None
    assert advance(job, missing(NOW + 999), NOW + 999, RULE) is None
    assert expire(job, NOW + 99_999, RULE) is None


def test_running_job_is_never_queued_again() -> None:
    job = born(State.RUNNING)
    assert advance(job, observed(NOW + 9, State.QUEUED, stage="Queued"), NOW + 9, RULE) is None


def test_table_holds_every_pair_that_does_not_lower_the_rank() -> None:
    rising = {
        (known, seen)
        for known in (State.QUEUED, State.RUNNING)
        for seen in State
        if seen.rank >= known.rank
    }
    assert set(TRANSITIONS) == rising | {(None, state) for state in State}


def test_terminal_states_and_terminal_events_are_the_last_of_their_kind() -> None:
    assert [state for state in State if state.terminal] == [
        State.COMPLETED,
        State.FAILED,
        State.CANCELLED,
    ]
    assert [kind.value for kind in EventType if kind.terminal] == [
        "job.completed",
        "job.failed",
        "job.cancelled",
    ]


def test_repeated_observation_brings_no_event_and_nothing_to_record() -> None:
    seen = observed(NOW + 1, stage="a", percentage=10)
    job = step(born(), seen).job
    again = step(job, seen)
    assert types(again) == []
    assert not again.worth_recording


def test_older_observation_of_the_same_rank_is_refused() -> None:
    job = step(born(State.RUNNING), observed(NOW + 10, stage="b", percentage=50)).job
    assert advance(job, observed(NOW + 9, stage="a", percentage=90), NOW + 11, RULE) is None


def test_older_observation_of_a_higher_rank_counts() -> None:
    job = born(State.QUEUED)
    change = step(job, observed(NOW - 5, State.COMPLETED))
    assert types(change) == [EventType.COMPLETED]
    assert change.job.observed_at == NOW


def test_state_that_rises_without_any_event_is_still_recorded() -> None:
    """Else a restart would forget that the job runs, and since when."""
    job = born(State.QUEUED)
    change = step(job, observed(NOW + 1, State.RUNNING))
    assert types(change) == []
    assert change.job.running_since == NOW + 1
    assert change.worth_recording


@pytest.mark.parametrize(
    ("reported", "seen", "due"), [(10.0, 10.9, False), (10.0, 11.0, True), (10.0, 60.0, True)]
)
def test_progress_is_reported_by_whole_steps(reported: float, seen: float, *, due: bool) -> None:
    job = born(State.RUNNING, stage="a", percentage=reported)
    assert types(step(job, observed(NOW + 1, percentage=seen))) == ([PROGRESS] if due else [])


def test_small_steps_add_up_to_one_report() -> None:
    job = born(State.RUNNING, stage="a", percentage=10)
    for tenths in range(1, 10):
        change = step(job, observed(NOW + tenths, percentage=10 + tenths / 10))
        assert types(change) == []
        job = change.job
    assert types(step(job, observed(NOW + 10, percentage=11))) == [PROGRESS]


def test_progress_step_is_the_rule_s() -> None:
    job = born(State.RUNNING, stage="a", percentage=10)
    coarse = WatchRule(progress_step=20)
    assert types(step(job, observed(NOW + 1, percentage=29), coarse)) == []
    assert types(step(job, observed(NOW + 1, percentage=30), coarse)) == [PROGRESS]


def test_first_percentage_of_a_job_is_progress() -> None:
    assert types(step(born(State.RUNNING), observed(NOW + 1, percentage=0))) == [PROGRESS]


def test_new_stage_is_progress_without_any_percentage() -> None:
    assert types(step(born(stage="a"), observed(NOW + 1, stage="b"))) == [STAGE, PROGRESS]


def test_percentage_never_falls_within_a_stage() -> None:
    job = born(State.RUNNING, stage="a", percentage=40)
    assert step(job, observed(NOW + 1, stage="a", percentage=30)).job.percentage == 40
    assert step(job, observed(NOW + 1, percentage=30)).job.percentage == 40


def test_percentage_may_fall_with_a_new_stage() -> None:
    job = born(State.RUNNING, stage="a", percentage=40)
    assert step(job, observed(NOW + 1, stage="b", percentage=5)).job.percentage == 5


@pytest.mark.parametrize(
    ("said", "known"), [(250, 100.0), (-3, 0.0), (NAN, 40.0), (math.inf, 40.0), (HUGE, 40.0)]
)
def test_percentage_is_clamped_and_nonsense_counts_as_unknown(said: float, known: float) -> None:
    job = born(State.RUNNING, stage="a", percentage=40 if known == 40 else None)
    assert step(job, observed(NOW + 1, stage="a", percentage=said)).job.percentage == known


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0.0),
        (99.5, 99.5),
        (250, 100.0),
        (-1, 0.0),
        (NAN, None),
        (math.inf, None),
        (-math.inf, None),
        (HUGE, None),
        (True, None),
        ("50", None),
        (None, None),
        ([50], None),
    ],
)
def test_percentage_is_a_finite_number_within_its_bounds(
    value: object, number: float | None
) -> None:
    assert percentage(value) == number


def test_finite_leaves_figures_unclamped() -> None:
    assert finite(250) == 250.0
    assert finite(-0.5) == -0.5
    assert finite(False) is None


def test_completed_job_is_at_100_when_nothing_else_is_said() -> None:
    job = born(State.RUNNING, stage="a", percentage=40)
    assert step(job, observed(NOW + 1, State.COMPLETED)).job.percentage == 100.0
    assert step(job, observed(NOW + 1, State.FAILED)).job.percentage == 40.0


@pytest.mark.parametrize(
    ("completed", "total", "clamped"), [(7, 5, 5), (3, 5, 3), (-1, 5, 0), (7, None, 7)]
)
def test_stages_completed_never_exceed_the_total(
    completed: int, total: int | None, clamped: int
) -> None:
    change = step(born(), observed(NOW + 1, stages_completed=completed, total_stages=total))
    assert change.job.stages_completed == clamped


def test_total_known_from_before_clamps_too() -> None:
    job = born(total_stages=7)
    assert step(job, observed(NOW + 1, stages_completed=9)).job.stages_completed == 7


def test_absent_fields_leave_what_is_known() -> None:
    job = born(
        State.RUNNING,
        stage="a",
        percentage=10,
        total_stages=7,
        stages_completed=1,
        eta_seconds=60,
        subject="v1",
        results={"n": 1},
    )
    after = step(job, observed(NOW + 1)).job
    assert after == replace(job, observed_at=NOW + 1)


def test_end_sets_the_eta_to_zero_and_the_time() -> None:
    job = step(born(eta_seconds=60), observed(NOW + 5, State.FAILED)).job
    assert (job.eta_seconds, job.finished_at) == (0.0, NOW + 5)


def test_time_in_each_stage_is_counted_once_it_is_left() -> None:
    job = born(State.RUNNING, stage="a")
    job = step(job, observed(NOW + 10, stage="b")).job
    job = step(job, observed(NOW + 15, stage="a")).job
    assert job.stage_seconds == {"a": 10.0, "b": 5.0}
    job = step(job, observed(NOW + 18, State.COMPLETED, stage="Completed")).job
    assert job.stage_seconds == {"a": 13.0, "b": 5.0}


def test_clock_set_back_counts_no_negative_time() -> None:
    job = born(State.RUNNING, stage="a")
    change = advance(job, observed(NOW + 1, stage="b"), NOW - 50, RULE)
    assert change is not None
    assert change.job.stage_seconds == {"a": 0.0}


def test_missing_job_is_first_only_noted() -> None:
    change = step(born(), missing(NOW + 5))
    assert types(change) == []
    assert change.worth_recording
    assert change.job.lost_since == NOW + 5


def test_missing_job_fails_as_lost_after_the_grace_period() -> None:
    job = step(born(State.RUNNING, stage="a"), missing(NOW + 5)).job
    assert advance(job, missing(NOW + 64.9), NOW + 64.9, RULE) is None
    change = step(job, missing(NOW + 65))
    assert types(change) == [EventType.FAILED]
    assert change.job.error is not None
    assert change.job.error["error_type"] == "job_lost"
    assert change.job.error["is_retryable"] is True
    assert change.job.stage == "a"


def test_queued_job_can_be_lost() -> None:
    job = step(born(State.QUEUED), missing(NOW + 1)).job
    assert types(step(job, missing(NOW + 61))) == [EventType.FAILED]


def test_job_that_reappears_is_not_lost() -> None:
    job = step(born(State.RUNNING), missing(NOW + 5)).job
    back = step(job, observed(NOW + 6))
    assert back.job.lost_since is None
    assert back.worth_recording
    # The grace period starts anew.
    again = step(back.job, missing(NOW + 90))
    assert again.job.lost_since == NOW + 90


def test_absence_asked_for_before_the_last_sight_is_stale() -> None:
    """A creation's own answer can overtake a poll that was sent before it."""
    job = step(born(State.RUNNING), observed(NOW + 10)).job
    assert advance(job, missing(NOW + 9), NOW + 11, RULE) is None


def test_sight_asked_for_before_an_absence_does_not_end_it() -> None:
    job = step(born(State.RUNNING), missing(NOW + 5)).job
    assert advance(job, observed(NOW + 4), NOW + 6, RULE) is None


def test_vanished_job_is_cancelled_where_policy_says_so() -> None:
    watch = WatchRule(vanished=State.CANCELLED)
    job = step(born(State.RUNNING), missing(NOW + 5), watch).job
    change = step(job, missing(NOW + 65), watch)
    assert types(change) == [EventType.CANCELLED]
    assert change.job.state is State.CANCELLED
    assert change.job.error is None


def test_job_that_runs_too_long_has_failed() -> None:
    job = born(State.RUNNING, stage="a", percentage=30)
    assert expire(job, NOW + 3599.9, RULE) is None
    change = expire(job, NOW + 3600, RULE)
    assert change is not None
    assert types(change) == [EventType.FAILED]
    assert change.job.error == {
        "error_type": "processing_timeout",
        "error_code": "PROCESSING_TIMEOUT",
        "error_message": "The job ran for longer than 3600 s.",
        "is_retryable": True,
    }
    assert (change.job.stage, change.job.percentage) == ("a", 30)


def test_time_in_the_queue_does_not_count_as_running() -> None:
    job = born(State.QUEUED)
    assert expire(job, NOW + 99_999, RULE) is None
    job = step(job, observed(NOW + 7200, State.RUNNING)).job
    assert expire(job, NOW + 7200 + 3599, RULE) is None
    assert expire(job, NOW + 7200 + 3600, RULE) is not None


@pytest.mark.parametrize(
    ("previous", "count"),
    [
        (None, 0),
        (born(State.COMPLETED), 0),
        (born(State.FAILED), 0),
        (born(State.FAILED, error={"is_retryable": False}), 0),
        (born(State.FAILED, error={"is_retryable": "yes"}), 0),
        (born(State.FAILED, error={"is_retryable": True}), 1),
        (replace(born(State.FAILED, error={"is_retryable": True}), retry_count=2), 3),
        (replace(born(State.CANCELLED), retry_count=2), 0),
    ],
)
def test_retries_count_creations_after_a_retryable_failure(
    previous: Job | None, count: int
) -> None:
    assert retry_count(previous) == count


FIGURES = st.one_of(
    st.none(),
    st.sampled_from([NAN, math.inf, -math.inf, 250.0, -7.0, HUGE, 0, 100]),
    st.floats(min_value=0, max_value=100),
)
COUNTS = st.one_of(st.none(), st.integers(min_value=-2, max_value=12))
OBSERVATIONS = st.fixed_dictionaries(
    {
        "lag": st.sampled_from([0.0, 0.0, 0.5, 3.0, 100.0]),
        "state": st.sampled_from([State.QUEUED, State.QUEUED, *[State.RUNNING] * 6, *State]),
        "stage": st.sampled_from([None, "a", "b", "c"]),
        "percentage": FIGURES,
        "stages_completed": COUNTS,
        "total_stages": COUNTS,
    }
)
STEP_SECONDS = st.sampled_from([0.0, 0.1, 1.0, 30.0])


class History(RuleBasedStateMachine):
    """Whatever is observed in whatever order, the job's history is one that could be true."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.watch = WatchRule(timeout_seconds=300, lost_after_seconds=45)
        self.job = blank()
        self.events: list[JobEvent] = []
        self.seen: list[Observation] = []

    @initialize(fields=OBSERVATIONS)
    def first_sight(self, fields: dict[str, Any]) -> None:
        observation = self.observation(fields)
        self.apply(begin(self.job, observation, self.now))

    @rule(fields=OBSERVATIONS, seconds=STEP_SECONDS)
    def observe(self, fields: dict[str, Any], seconds: float) -> None:
        self.now += seconds
        self.apply(advance(self.job, self.observation(fields), self.now, self.watch))

    @rule(data=st.data(), seconds=STEP_SECONDS)
    def repeat(self, data: st.DataObject, seconds: float) -> None:
        self.now += seconds
        observation = data.draw(st.sampled_from(self.seen))
        self.apply(advance(self.job, observation, self.now, self.watch))

    @rule(lag=st.sampled_from([0.0, 2.0]), seconds=STEP_SECONDS)
    def miss(self, lag: float, seconds: float) -> None:
        self.now += seconds
        self.apply(advance(self.job, missing(self.now - lag), self.now, self.watch))

    @rule(seconds=STEP_SECONDS)
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.apply(expire(self.job, self.now, self.watch))

    @rule(seconds=st.sampled_from([-7200.0, -5.0, 5.0, 7200.0]))
    def jump(self, seconds: float) -> None:
        """The clock is set."""
        self.now += seconds

    def observation(self, fields: dict[str, Any]) -> Observation:
        given = dict(fields)
        observation = Observation("j1", self.now - given.pop("lag"), **given)
        self.seen.append(observation)
        return observation

    def apply(self, change: JobChange | None) -> None:
        if change is None:
            return
        before, after = self.job, change.job
        assert not before.state.terminal or change.before is None
        if change.before is not None:
            assert after.state.rank >= before.state.rank
            assert after.observed_at >= before.observed_at
            same_stage = after.stage == before.stage
            if same_stage and before.percentage is not None:
                assert after.percentage is not None
                assert after.percentage >= before.percentage
            if EventType.PROGRESS in types(change) and same_stage:
                assert after.percentage != before.reported_percentage
            assert (EventType.STAGE_CHANGED in types(change)) == (
                not same_stage and not after.state.terminal
            )
        self.job = after
        self.events.extend(change.events)

    @precondition(lambda self: self.events)
    @invariant()
    def sequences_have_no_gap(self) -> None:
        assert [event.sequence for event in self.events] == list(range(1, len(self.events) + 1))
        assert self.job.sequence == len(self.events)

    @precondition(lambda self: self.events)
    @invariant()
    def started_comes_first_and_once(self) -> None:
        assert [event.type for event in self.events].count(STARTED) == 1
        assert self.events[0].type is STARTED

    @precondition(lambda self: self.events)
    @invariant()
    def the_one_terminal_event_is_the_last(self) -> None:
        terminal = [event for event in self.events if event.type.terminal]
        assert len(terminal) == int(self.job.state.terminal)
        if terminal:
            assert self.events[-1] is terminal[0]
            assert terminal[0].type.value == f"job.{self.job.state.value}"
            assert self.job.finished_at is not None

    @invariant()
    def figures_are_possible(self) -> None:
        job = self.job
        assert job.percentage is None or 0 <= job.percentage <= 100
        if job.stages_completed is not None:
            assert job.stages_completed >= 0
            assert job.total_stages is None or job.stages_completed <= max(0, job.total_stages)
        assert all(spent >= 0 for spent in job.stage_seconds.values())


TestHistory = History.TestCase


def test_a_change_carries_the_answer_it_was_seen_in() -> None:
    answer = Response(200, body=b"{}")
    first = begin(blank(), observed(answer=answer), NOW)
    change = step(first.job, observed(NOW + 1, stage="next", answer=answer))

    assert (first.answer, change.answer) == (answer, answer)
    assert step(change.job, missing(NOW + 2)).answer is None
