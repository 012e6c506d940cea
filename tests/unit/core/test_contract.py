"""What the answers of an upstream say of its jobs, by the contract alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.contract import (
    CANCEL,
    CREATE,
    DETAILS,
    FIELDS,
    LIST,
    STATUS,
    STREAM,
    Contract,
    ContractRoute,
    Unreadable,
    decode,
    epoch,
)
from gateway.core.job import Observation, State
from gateway.core.sse import EventParser
from gateway.settings.contract import compile_contract
from gateway.settings.job import JobContract

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data"
NOW = 1_000_000.0
DONE = "3bc7adc7-dbe4-4021-ad61-9c0ab0b6dc8b"
BROKEN = "2039dfaf-337a-4ca2-b702-46c25223be69"
STATUS_PATH = "/api/v1/analysis/{job_id}/status"
FAILURE = {
    "error_type": "external_service_error",
    "error_code": "DEEPGRAM_DOWN",
    "error_message": "boom",
    "error_details": "d",
    "is_retryable": True,
    "suggested_action": "retry",
    "support_reference": "ERR-1",
}


def shipped() -> Contract:
    """The contract of the gateway.yaml that is shipped."""
    document = yaml.safe_load((ROOT / "gateway.yaml").read_text())
    return compile_contract(JobContract.model_validate(document["jobs"]))


def dialect(name: str) -> Contract:
    document = yaml.safe_load((DATA / "contracts" / f"{name}.yaml").read_text())
    return compile_contract(JobContract.model_validate(document))


def small(fields: dict[str, str] | None = None, **states: list[str]) -> Contract:
    return Contract(
        [ContractRoute(STATUS, "/jobs/{job_id}", frozenset({"GET"}))],
        fields or {"id": "id", "state": "status", "percentage": "progress"},
        states or {"running": ["*"], "completed": ["done"]},
    )


def sample(name: str) -> Any:
    return decode((DATA / "upstream" / name).read_bytes())


def refusal(contract: Contract, document: object, **given: Any) -> str:
    with pytest.raises(Unreadable) as caught:
        contract.observe(document, NOW, **given)
    assert str(caught.value)
    return caught.value.reason


class TestSamples:
    """The shipped contract over what the upstream really answers."""

    @pytest.mark.parametrize(
        ("name", "template", "expected"),
        [
            (
                "create-200.json",
                "/api/v1/analysis",
                Observation(
                    DONE,
                    NOW,
                    state=State.QUEUED,
                    stage="Queued",
                    percentage=0.0,
                    stages_completed=0,
                    total_stages=7,
                    eta_seconds=3.0,
                    subject="2434635255",
                ),
            ),
            (
                "status-queued.json",
                STATUS_PATH,
                Observation(
                    DONE,
                    NOW,
                    state=State.QUEUED,
                    stage="Queued",
                    percentage=0.0,
                    stages_completed=0,
                    total_stages=5,
                    eta_seconds=3.0,
                    subject="2434635255",
                    created_at=1795446416.463029,
                ),
            ),
            (
                "status-running.json",
                STATUS_PATH,
                Observation(
                    DONE,
                    NOW,
                    state=State.RUNNING,
                    stage="Transcribing",
                    percentage=40.0,
                    stages_completed=3,
                    total_stages=5,
                    eta_seconds=7.0,
                    subject="2434635255",
                    created_at=1795446416.463029,
                ),
            ),
            (
                "status-completed.json",
                STATUS_PATH,
                Observation(
                    DONE,
                    NOW,
                    state=State.COMPLETED,
                    stage="Completed",
                    percentage=100.0,
                    stages_completed=7,
                    total_stages=5,
                    eta_seconds=0.0,
                    subject="2434635255",
                    created_at=1795446416.463029,
                ),
            ),
            (
                "status-failed.json",
                STATUS_PATH,
                Observation(
                    BROKEN,
                    NOW,
                    state=State.FAILED,
                    stage="Failed",
                    percentage=90.0,
                    stages_completed=6,
                    total_stages=5,
                    eta_seconds=1.0,
                    subject="2434635213",
                    created_at=1795446416.900514,
                    error={**FAILURE, "retry_after_seconds": None},
                ),
            ),
        ],
    )
    def test_answer_about_one_job(self, name: str, template: str, expected: Observation) -> None:
        assert shipped().observe(sample(name), NOW, template=template) == expected

    def test_details_say_success_but_their_stage_counts(self) -> None:
        document = sample("details-completed.json")
        assert document["status"] == "success"
        seen = shipped().observe(document, NOW, template="/api/v1/analysis/{job_id}", job_id=DONE)
        assert (seen.state, seen.stage) == (State.COMPLETED, "Completed")
        assert seen.results["highlights_count"] == 3

    def test_failed_details_carry_the_error(self) -> None:
        document = sample("details-failed.json")
        seen = shipped().observe(document, NOW, template="/api/v1/analysis/{job_id}")
        assert (seen.state, seen.results) == (State.FAILED, None)
        assert seen.error == {**FAILURE, "retry_after_seconds": None}

    def test_list_says_less_of_each_job(self) -> None:
        contract = shipped()
        seen = [
            contract.observe(item, NOW, template="/api/v1/jobs")
            for item in contract.items(sample("jobs-200.json"))
        ]
        assert [(item.job_id, item.state, item.percentage) for item in seen] == [
            (DONE, State.COMPLETED, 100.0),
            (BROKEN, State.FAILED, 90.0),
        ]

    def test_stream_of_a_job_that_completes(self) -> None:
        states, last = self.stream("stream-completed.txt", DONE)
        assert states == ["no_state", "queued", *["running"] * 6, "completed", "no_state"]
        assert last.results["video_url"] == "gs://klipstream-vods-raw/2434635255/video.mp4"

    def test_stream_of_a_job_that_fails(self) -> None:
        states, last = self.stream("stream-failed.txt", BROKEN)
        assert states == ["no_state", *["running"] * 6, "failed", "no_state"]
        assert last.error == FAILURE

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("create-400.json", "no_id"),
            ("create-422.json", "no_id"),
            ("status-404.json", "no_id"),
            ("queue-503.json", "no_id"),
            ("health-200.json", "no_id"),
            ("jobs-200.json", "no_id"),
        ],
    )
    def test_other_answers_name_no_job(self, name: str, reason: str) -> None:
        assert refusal(shipped(), sample(name)) == reason

    @staticmethod
    def stream(name: str, job_id: str) -> tuple[list[str], Observation]:
        contract, states, last = shipped(), [], None
        for event in EventParser().feed((DATA / "upstream" / name).read_bytes()):
            try:
                last = contract.observe(
                    decode(event.data),
                    NOW,
                    template="/api/v1/analysis/{job_id}/stream",
                    job_id=job_id,
                )
                states.append(last.state.value)
            except Unreadable as error:
                states.append(error.reason)
        assert last is not None
        return states, last


class TestShippedRoutes:
    def test_every_route_of_the_upstream_s_jobs_is_there(self) -> None:
        contract = shipped()
        assert [contract.path(name, "j1") for name in (STATUS, DETAILS, STREAM, LIST, CANCEL)] == [
            "/api/v1/analysis/j1/status",
            "/api/v1/analysis/j1",
            "/api/v1/analysis/j1/stream",
            "/api/v1/jobs",
            "/api/v1/queue/jobs/j1",
        ]
        created = {route.template for route in contract.routes if route.name == CREATE}
        assert created == {"/api/v1/analysis", "/api/v1/analyze", "/legacy/run_pipeline"}
        cancel = {route.methods for route in contract.routes if route.name == CANCEL}
        assert cancel == {frozenset({"DELETE"})}

    def test_legacy_creation_is_queued_whatever_it_says(self) -> None:
        document = {"status": "success", "job_id": "j1"}
        seen = shipped().observe(document, NOW, template="/legacy/run_pipeline")
        assert seen.state is State.QUEUED

    def test_callback_is_read_from_the_creation_s_own_body(self) -> None:
        contract = shipped()
        body = {"url": "u", "callback_url": "https://me.example/hook"}
        assert contract.callback_url(body, "/api/v1/analysis") == "https://me.example/hook"
        assert contract.callback_url({"url": "u"}, "/api/v1/analysis") is None
        assert contract.callback_url(None) is None
        assert contract.callback_url({"callback_url": ["x"]}) is None


class TestFlatDialect:
    TEMPLATE = "/api/v1/status/{job_id}"

    def answer(self, **fields: Any) -> dict[str, Any]:
        document = {
            "status": "processing",
            "progress": 45,
            "current_stage": "transcription",
            "estimated_completion": "2026-01-01T00:00:00Z",
            "error": None,
            "results": {},
        }
        return {**document, **fields}

    def observe(self, **fields: Any) -> Observation:
        return dialect("flat").observe(
            self.answer(**fields), NOW, template=self.TEMPLATE, job_id="j1"
        )

    def test_running(self) -> None:
        assert self.observe() == Observation(
            "j1", NOW, state=State.RUNNING, stage="transcription", percentage=45.0
        )

    @pytest.mark.parametrize(
        ("word", "state"),
        [
            ("queued", State.QUEUED),
            ("processing", State.RUNNING),
            ("completed", State.COMPLETED),
            ("failed", State.FAILED),
        ],
    )
    def test_lower_case_statuses(self, word: str, state: State) -> None:
        assert self.observe(status=word).state is state

    def test_a_status_that_the_contract_does_not_know_is_refused(self) -> None:
        document = self.answer(status="paused")
        assert refusal(dialect("flat"), document, job_id="j1") == "unknown_state"

    def test_results_and_an_error_that_is_a_text(self) -> None:
        assert self.observe(status="completed", results={"clips": 3}).results == {"clips": 3}
        assert self.observe(status="failed", error="boom").error == {
            "error_type": "unknown_error",
            "error_message": "boom",
        }


class TestNestedDialect:
    def observe(self, status: str, **progress: Any) -> Observation:
        document = {"id": "j1", "status": status, "progress": progress}
        return dialect("nested").observe(document, NOW, template=STATUS_PATH, job_id="j1")

    def test_running(self) -> None:
        assert self.observe(
            "transcribing", percentage=33.3, current_stage="Transcribing", message="part 2 of 6"
        ) == Observation("j1", NOW, state=State.RUNNING, stage="Transcribing", percentage=33.3)

    def test_status_is_the_stage_where_none_is_named(self) -> None:
        assert self.observe("analyzing", percentage=60).stage == "analyzing"

    @pytest.mark.parametrize(
        ("word", "state"),
        [("pending", State.QUEUED), ("finished", State.COMPLETED), ("cancelled", State.CANCELLED)],
    )
    def test_any_word_may_map_to_a_state(self, word: str, state: State) -> None:
        assert self.observe(word).state is state

    def test_list_is_an_expression_too(self) -> None:
        document = {"analyses": [{"job": {"id": "j1", "status": "queued"}}, {"other": 1}]}
        assert dialect("nested").items(document) == [{"id": "j1", "status": "queued"}]


class TestDecode:
    def test_json(self) -> None:
        assert decode(b'{"a": [1, 2.5, null, true, "x"]}') == {"a": [1, 2.5, None, True, "x"]}

    @pytest.mark.parametrize("word", [b"NaN", b"Infinity", b"-Infinity"])
    def test_figures_that_json_lacks_become_null(self, word: bytes) -> None:
        assert decode(b'{"progress": ' + word + b', "status": "x"}') == {
            "progress": None,
            "status": "x",
        }

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"<html><body>502 Bad Gateway</body></html>",
            b'{"job_id": "j1", "status": "Queu',
            b"{'job_id': 'j1'}",
            b"\xff\xfe\x00",
            b"[" * 100_000,
            b"[" * 5000 + b"]" * 5000,
            b'{"x": ' + b"[" * 300 + b"]" * 300 + b"}",  # could be read, not written
        ],
    )
    def test_anything_else_is_refused_as_not_json(self, body: bytes) -> None:
        with pytest.raises(Unreadable) as caught:
            decode(body)
        assert caught.value.reason == "not_json"

    @pytest.mark.parametrize(
        ("body", "document"),
        [
            (b'{"results": "a\\ud800"}', {"results": "a?"}),
            (b'{"\\udfff": 1}', {"?": 1}),
            (b'"\xed\xa0\x80"', "?"),
            (b'[1e999, -1e999, 1.5, "x"]', [None, None, 1.5, "x"]),
            (b'{"n": ' + b"9" * 5000 + b"}", {"n": None}),
            (
                b'{"n": 123456789012345678901234567890, "x": NaN}',
                {"n": 1.2345678901234568e29, "x": None},
            ),
            (b"[18446744073709551615, -9223372036854775808, NaN]", [2**64 - 1, -(2**63), None]),
        ],
    )
    def test_what_could_not_be_written_again_is_mended(self, body: bytes, document: Any) -> None:
        """An event must carry it: a lone surrogate is not UTF-8, and figures have their bounds."""
        assert decode(body) == document
        assert orjson.loads(orjson.dumps(document)) == document

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        )
    )
    def test_whatever_python_writes_is_read_and_can_be_written_again(self, value: Any) -> None:
        assert orjson.dumps({"results": decode(json.dumps(value).encode())})

    @given(st.binary(max_size=60))
    def test_bytes_are_read_or_refused(self, body: bytes) -> None:
        reason = "not_json"
        try:
            orjson.dumps(decode(body))
        except Unreadable as error:
            reason = error.reason
        assert reason == "not_json"


class TestUnreadable:
    @pytest.mark.parametrize("document", [None, 1, "text", [], [{"id": "j1"}], True])
    def test_answer_must_be_an_object(self, document: object) -> None:
        assert refusal(small(), document) == "not_object"
        with pytest.raises(Unreadable):
            small().state_of(document)

    @pytest.mark.parametrize("said", [None, "", True, 1.5, ["j1"], {"a": 1}])
    def test_answer_must_name_its_job(self, said: object) -> None:
        assert refusal(small(), {"id": said, "status": "x"}) == "no_id"

    def test_whoever_was_asked_about_is_meant_when_none_is_named(self) -> None:
        assert small().observe({"status": "x"}, NOW, job_id="j1").job_id == "j1"

    def test_numeric_id_is_the_same_as_its_text(self) -> None:
        assert small().observe({"id": 17, "status": "x"}, NOW, job_id="17").job_id == "17"

    def test_answer_about_another_job_is_refused(self) -> None:
        assert refusal(small(), {"id": "j2", "status": "x"}, job_id="j1") == "other_job"

    @pytest.mark.parametrize("word", [None, "", 3, False, ["done"], {"x": 1}])
    def test_answer_must_show_a_state(self, word: object) -> None:
        assert refusal(small(), {"id": "j1", "status": word}) == "no_state"
        assert refusal(small(), {"id": "j1"}) == "no_state"

    def test_without_a_catch_all_unknown_words_are_refused(self) -> None:
        contract = small(completed=["done"])
        assert refusal(contract, {"id": "j1", "status": "later"}) == "unknown_state"
        assert contract.observe({"id": "j1", "status": "done"}, NOW).state is State.COMPLETED

    @pytest.mark.parametrize("document", [{"jobs": None}, {"jobs": {}}, {}, [], "x", 3])
    def test_list_must_hold_an_array(self, document: object) -> None:
        with pytest.raises(Unreadable) as caught:
            small().items(document)
        assert caught.value.reason == "no_items"


class TestFieldTypes:
    ALL = {name: name for name in FIELDS}

    def seen(self, **fields: Any) -> Observation:
        return small(self.ALL).observe({"id": "j1", "state": "x", **fields}, NOW)

    @pytest.mark.parametrize("value", [True, False, "50", [50], {}, 10**400, float("nan"), None])
    def test_percentage_of_a_wrong_type_counts_as_absent(self, value: object) -> None:
        assert self.seen(percentage=value).percentage is None

    @pytest.mark.parametrize(("value", "kept"), [(250, 100.0), (-1, 0.0), (10**30, 100.0)])
    def test_percentage_is_clamped(self, value: object, kept: float) -> None:
        assert self.seen(percentage=value).percentage == kept

    @pytest.mark.parametrize(
        ("value", "corrected"),
        [(0, None), (100, None), (None, None), (250, "percentage"), ("50", "percentage")],
    )
    def test_figure_that_cannot_be_is_used_in_part_and_named(
        self, value: object, corrected: str | None
    ) -> None:
        assert self.seen(percentage=value).corrected == corrected

    def test_answer_that_had_to_be_mended_is_named(self) -> None:
        document = decode(b'{"id": "j1", "state": "x", "eta_seconds": NaN}')
        assert small(self.ALL).observe(document, NOW).corrected == "not_json"

    @pytest.mark.parametrize("value", [True, "3", -1, 10**400, 2**53 + 2, float("inf"), [3]])
    def test_count_of_a_wrong_type_or_size_counts_as_absent(self, value: object) -> None:
        seen = self.seen(stages_completed=value, total_stages=value)
        assert (seen.stages_completed, seen.total_stages) == (None, None)

    def test_count_written_as_a_float_is_whole(self) -> None:
        assert self.seen(total_stages=7.0).total_stages == 7

    @pytest.mark.parametrize("value", [True, "3", -0.1, 10**400, float("nan")])
    def test_duration_of_a_wrong_type_counts_as_absent(self, value: object) -> None:
        assert self.seen(eta_seconds=value).eta_seconds is None

    @pytest.mark.parametrize("value", [3, True, [], {}, ""])
    def test_text_of_a_wrong_type_counts_as_absent(self, value: object) -> None:
        seen = self.seen(stage=value, subject=value)
        assert (seen.stage, seen.subject) == (None, None)

    @pytest.mark.parametrize("value", [None, "", {}, [], ["boom"], 3, True])
    def test_error_is_an_object_or_a_text(self, value: object) -> None:
        assert self.seen(error=value).error is None

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("1970-01-01T00:00:10", 10.0),
            ("1970-01-01T00:00:10Z", 10.0),
            ("1970-01-01T01:00:10+01:00", 10.0),
            ("1970-01-01T00:00:10.250000", 10.25),
            ("0001-01-01T00:00:00+23:59", -62135683140.0),
            ("yesterday", None),
            ("", None),
            (10, None),
            (None, None),
        ],
    )
    def test_time_without_a_zone_means_utc(self, text: object, seconds: float | None) -> None:
        assert epoch(text) == seconds


class TestExpressions:
    def test_route_s_own_fields_override_the_contract_s(self) -> None:
        contract = Contract(
            [
                ContractRoute(CREATE, "/a", frozenset({"POST"}), {"id": "task.uid"}),
                ContractRoute(CREATE, "/b", frozenset({"POST"}), {"state": "'done'"}),
            ],
            {"id": "id", "state": "status"},
            {"running": ["*"], "completed": ["done"]},
        )
        nested = {"task": {"uid": "t"}, "status": "x", "id": "i"}
        assert contract.observe(nested, NOW, template="/a").job_id == "t"
        assert contract.observe(nested, NOW, template="/b").job_id == "i"
        assert contract.observe(nested, NOW, template="/b").state is State.COMPLETED
        assert contract.observe(nested, NOW).state is State.RUNNING
        assert contract.state_of(nested, "/b") is State.COMPLETED

    @pytest.mark.parametrize(
        "text", ["length(progress)", "progress.figures | sum(@)", "to_number(progress, status)"]
    )
    def test_expression_that_fails_on_an_answer_counts_as_absent(self, text: str) -> None:
        fields = {"id": "id", "state": "status", "percentage": text}
        seen = small(fields).observe({"id": "j1", "status": "x", "progress": None}, NOW)
        assert seen.percentage is None

    def test_state_or_list_whose_expression_fails_is_refused_not_raised(self) -> None:
        contract = Contract([], {"id": "id", "state": "join('-', parts)"}, {}, "keys(jobs)")
        assert refusal(contract, {"id": "j1", "parts": 3}) == "no_state"
        with pytest.raises(Unreadable):
            contract.state_of({"parts": 3})
        with pytest.raises(Unreadable):
            contract.items({"jobs": 3})

    @pytest.mark.parametrize(
        ("fields", "states", "items", "said"),
        [
            ({"id": "job_id ||"}, {}, "jobs", "jobs.fields.id: 'job_id ||'"),
            ({"colour": "x"}, {}, "jobs", "unknown field 'colour'"),
            ({}, {"running": ["x"], "failed": ["x"]}, "jobs", "'x' means both running and failed"),
            ({}, {"paused": ["x"]}, "jobs", "paused"),
            ({}, {}, "jobs[", "jobs.list.items: 'jobs['"),
        ],
    )
    def test_contract_that_cannot_be_used_says_where(
        self, fields: dict[str, str], states: dict[str, list[str]], items: str, said: str
    ) -> None:
        with pytest.raises(ValueError, match=re.escape(said)):
            Contract([], fields, states, items)

    def test_route_s_wrong_field_names_the_route(self) -> None:
        with pytest.raises(ValueError, match=r"/jobs/\{job_id\}\.stage"):
            Contract(
                [ContractRoute(STATUS, "/jobs/{job_id}", frozenset({"GET"}), {"stage": "]"})],
                {},
                {},
            )


class TestPaths:
    def test_route_that_the_upstream_lacks_has_no_path(self) -> None:
        contract = small()
        assert contract.has(STATUS)
        assert not contract.has(DETAILS)
        assert contract.path(DETAILS, "j1") is None
        assert contract.template(DETAILS) == ""

    @pytest.mark.parametrize(
        ("job_id", "path"),
        [
            ("3bc7adc7-dbe4", "/jobs/3bc7adc7-dbe4"),
            ("a:b@c=1", "/jobs/a:b@c=1"),
            ("../admin", "/jobs/..%2Fadmin"),
            ("a b?x=1#y", "/jobs/a%20b%3Fx=1%23y"),
            ("a\r\nHost: evil", "/jobs/a%0D%0AHost:%20evil"),
            ("é{job_id}", "/jobs/%C3%A9%7Bjob_id%7D"),
        ],
    )
    def test_id_is_one_segment_of_the_path_whatever_it_holds(self, job_id: str, path: str) -> None:
        assert small().path(STATUS, job_id) == path

    def test_template_is_the_route_s_own(self) -> None:
        assert small().template(STATUS) == "/jobs/{job_id}"


class TestCorrected:
    """What cannot be is put right, and said."""

    @pytest.mark.parametrize("said", [b"NaN", b"250", b"-1", b'"half"', b"true"])
    def test_impossible_percentage_is_named(self, said: bytes) -> None:
        body = b'{"id": "j1", "state": "running", "percentage": ' + said + b"}"
        fields = {"id": "id", "state": "state", "percentage": "percentage"}
        contract = Contract([], fields, {"running": ["*"]})
        seen = contract.observe(decode(body), 1.0)
        assert seen.corrected == ("not_json" if said == b"NaN" else "percentage")
        assert seen.percentage is None or 0 <= seen.percentage <= 100

    @pytest.mark.parametrize("said", [b"0", b"100", b"41.5", b"null"])
    def test_possible_percentage_is_not(self, said: bytes) -> None:
        body = b'{"id": "j1", "state": "running", "percentage": ' + said + b"}"
        fields = {"id": "id", "state": "state", "percentage": "percentage"}
        contract = Contract([], fields, {"running": ["*"]})
        assert contract.observe(decode(body), 1.0).corrected is None
