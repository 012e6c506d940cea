"""The envelope that subscribers receive."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from gateway.core.event import envelope, event_id, rfc3339, serialize
from gateway.core.job import Job, JobChange, Observation, State
from gateway.core.transition import WatchRule, advance, begin

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
URL = "/api/v1/analysis/j1/status"


def first(state: State = State.QUEUED) -> JobChange:
    job = Job(
        id="j1",
        incarnation="01J",
        owner="team",
        upstream="here",
        state=State.QUEUED,
        created_at=NOW,
        observed_at=NOW,
        subject="v1",
    )
    return begin(job, Observation("j1", NOW, state=state, results={"n": 1}), NOW)


def running() -> JobChange:
    observation = Observation(
        "j1",
        NOW + 1.5,
        stage="Transcribing",
        percentage=42,
        stages_completed=9,
        total_stages=7,
        eta_seconds=120,
        error={"error_type": "passing"},
        results={"n": 1},
    )
    change = advance(first().job, observation, NOW + 1.5, WatchRule())
    assert change is not None
    return change


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (NOW, "2026-01-01T00:00:00.000Z"),
        (NOW + 0.0625, "2026-01-01T00:00:00.062Z"),
        (NOW + 86399.9996, "2026-01-01T23:59:59.999Z"),
    ],
)
def test_times_are_rfc_3339_in_utc_with_milliseconds(at: float, text: str) -> None:
    assert rfc3339(at) == text


def test_envelope_of_a_running_job() -> None:
    change = running()
    stage, progress = change.events
    assert envelope(change.job, stage, URL) == {
        "id": event_id(change.job, stage),
        "type": "job.stage_changed",
        "timestamp": "2026-01-01T00:00:01.500Z",
        "api_version": "1",
        "sequence": 2,
        "data": {
            "job_id": "j1",
            "video_id": "v1",
            "status": "running",
            "previous_status": "queued",
            "stage": "Transcribing",
            "progress": 42.0,
            "stages_completed": 7,
            "total_stages": 7,
            "estimated_completion_seconds": 120,
            "error": None,
            "results": None,
            "status_url": URL,
        },
    }
    assert envelope(change.job, progress, URL)["sequence"] == 3


def test_every_field_is_there_before_anything_is_known() -> None:
    change = first()
    assert set(envelope(change.job, change.events[0], None)["data"]) == set(
        envelope(running().job, running().events[0], URL)["data"]
    )
    assert envelope(change.job, change.events[0], None)["data"]["previous_status"] is None


def test_results_and_error_are_told_by_the_terminal_event_alone() -> None:
    change = first(State.COMPLETED)
    started, completed = (envelope(change.job, event, URL)["data"] for event in change.events)
    assert started["results"] is None
    assert completed["results"] == {"n": 1}
    failed = advance(
        running().job,
        Observation("j1", NOW + 2, state=State.FAILED, error={"error_type": "boom"}),
        NOW + 2,
        WatchRule(),
    )
    assert failed is not None
    assert envelope(failed.job, failed.events[0], URL)["data"]["error"] == {"error_type": "boom"}


def test_event_made_again_keeps_its_id() -> None:
    assert event_id(first().job, first().events[0]) == event_id(first().job, first().events[0])
    assert event_id(first().job, first().events[0]).startswith("evt_")


def test_ids_differ_by_sequence_job_and_incarnation() -> None:
    change = running()
    job, (stage, progress) = change.job, change.events
    ids = {
        event_id(job, stage),
        event_id(job, progress),
        event_id(replace(job, id="j2"), stage),
        event_id(replace(job, incarnation="01K"), stage),
    }
    assert len(ids) == 4


def test_ids_sort_by_time() -> None:
    assert event_id(first().job, first().events[0]) < event_id(running().job, running().events[0])


def test_serialized_envelope_is_compact_json() -> None:
    change = running()
    document = envelope(change.job, change.events[0], URL)
    body = serialize(document)
    assert orjson.loads(body) == document
    assert b": " not in body
