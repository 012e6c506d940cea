"""What is written of a job reads back, through the contract, as the job that it is."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.contract import STREAM, Contract
from gateway.core.job import Job, State
from gateway.core.rendering import Rendering
from gateway.settings.contract import compile_contract
from gateway.settings.job import JobContract

ROOT = Path(__file__).parents[3]
NOW = 1_700_000_000.0
FILES = {
    "shipped": ROOT / "gateway.yaml",
    "flat": ROOT / "tests/data/contracts/flat.yaml",
    "nested": ROOT / "tests/data/contracts/nested.yaml",
}


def load(name: str) -> tuple[Contract, JobContract]:
    document = yaml.safe_load(FILES[name].read_text())
    settings = JobContract.model_validate(document.get("jobs", document))
    return compile_contract(settings), settings


DIALECTS = {name: load(name) for name in FILES}


def job(state: State = State.RUNNING, **fields: object) -> Job:
    known = {"stage": "Transcribing", "percentage": 40.0, "subject": "2434635255", **fields}
    return Job("j1", "", "", "", state, NOW, NOW, **known)  # type: ignore[arg-type]


@given(
    dialect=st.sampled_from(sorted(DIALECTS)),
    state=st.sampled_from(State),
    stage=st.none() | st.text(min_size=1),
    percentage=st.none() | st.floats(0, 100),
    stages=st.none() | st.integers(0, 100),
)
def test_what_is_told_reads_back_as_the_job(
    dialect: str, state: State, stage: str | None, percentage: float | None, stages: int | None
) -> None:
    contract, settings = DIALECTS[dialect]
    known = job(state, stage=stage, percentage=percentage, stages_completed=stages)
    first, *_ = Rendering(contract, settings.states).told(known, NOW)
    if not settings.states.get(state):  # the dialect has no word for it
        return
    seen = contract.observe(
        orjson.loads(first.data), NOW, template=contract.template(STREAM), job_id="j1"
    )
    assert (seen.state, seen.percentage) == (state, percentage)
    if "stages_completed" in settings.fields:
        assert seen.stages_completed == stages


def test_events_have_the_names_and_fields_of_the_upstreams_own() -> None:
    contract, settings = DIALECTS["shipped"]
    rendering = Rendering(contract, settings.states)
    sample = (ROOT / "tests/data/upstream/stream-completed.txt").read_text()
    theirs = [
        orjson.loads(line.removeprefix("data: "))
        for line in sample.splitlines()
        if line.startswith("data: ")
    ]
    done = job(State.COMPLETED, stage="Completed", results={"video_url": "gs://x"})
    ours = [rendering.greeting(job(), NOW), *rendering.told(job(), NOW), *rendering.told(done, NOW)]
    assert [event.name for event in ours] == ["connected", "progress", "completed", "stream_ended"]
    for event in ours:
        twin = [each for each in theirs if each["event"] == event.name][-1]
        assert orjson.loads(event.data).keys() <= twin.keys()


def test_a_stage_that_hides_the_end_gives_way_to_it() -> None:
    contract, settings = DIALECTS["shipped"]
    failed = job(State.FAILED, error={"error_type": "processing_timeout"})
    first, farewell = Rendering(contract, settings.states).told(failed, NOW)
    document = orjson.loads(first.data)
    assert first.name == "failed"
    assert document["status"] == document["progress"]["current_stage"] == "Failed"
    assert document["error"] == {"error_type": "processing_timeout"}
    assert orjson.loads(farewell.data)["final_status"] == "Failed"


def test_a_contract_that_cannot_be_turned_round_is_refused() -> None:
    settings = DIALECTS["flat"][1]
    odd = settings.model_copy(update={"fields": {**settings.fields, "state": "join('', [status])"}})
    Rendering(compile_contract(odd), odd.states)  # `status` is still where it stands
    odd = settings.model_copy(update={"fields": {**settings.fields, "state": "reverse(status)"}})
    with pytest.raises(ValueError, match="cannot be turned round: a job that is queued"):
        Rendering(compile_contract(odd), odd.states)
