"""Filters: what they may say, and what they mean."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.core.filter import MAX_DEPTH, MAX_NODES, compile_filter, evaluate

ENVELOPE: dict[str, Any] = {
    "type": "job.progress",
    "sequence": 3,
    "data": {
        "status": "running",
        "stage": None,
        "progress": 42.0,
        "stages_completed": 0,
        "results": {"highlights": [{"score": 0.4}, {"score": 0.9}]},
    },
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.status == 'running'", True),
        ("data.status == 'failed'", False),
        ("data.progress >= `40` && type == 'job.progress'", True),
        ('contains(`["running", "queued"]`, data.status)', True),
        ("data.results.highlights[?score > `0.8`]", True),
        ("data.results.highlights[?score > `0.95`]", False),
        ("!(data.error)", True),
        ("length(data.results.highlights) == `2`", True),
        ("data.stages_completed", True),  # JMESPath: 0 is true
        ("data.stage", False),
        ("''", False),
        ("`{}`", False),
    ],
)
def test_predicate_follows_jmespath_truth(text: str, expected: bool) -> None:  # noqa: FBT001
    compile_filter(text)
    assert expected is evaluate(text, ENVELOPE)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a" * 513, "longer than 512"),
        ("data.status ==", "not JMESPath"),
        ("data[", "not JMESPath"),
        ('`{"bad`', "not JMESPath"),
        ("[@,@]|[@,@]|[@,@]", "builds a value"),
        ("{a: data, b: data}", "builds a value"),
        ("max_by(data.results.highlights, &score)", "calls max_by"),
        ("to_string(data)", "calls to_string"),
        ("join(',', data.names)", "calls join"),
        ("nonsense(data)", "calls nonsense"),
        ("length(data, data)", "with 2 arguments"),
        ("not_null()", "with 0 arguments"),
        ("data.list[::0]", "step 0"),
        ("`[1,2]`[*].length(@)", "literal array"),
        ("(data.x || `[1]`)[*]", "literal array"),
        ('values(`{"a": 1}`)', "literal array"),
        (" || ".join(["a"] * (MAX_DEPTH + 1)), "nested deeper"),
        ("!" * 511 + "a", "nested"),
        ("(" * 511, "is not JMESPath|nested"),
        ("a." * (MAX_NODES + 1) + "a", "more than 128 parts"),
    ],
)
def test_refused_filter_names_the_rule(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        compile_filter(text)


@pytest.mark.parametrize(
    "text",
    [
        "starts_with(data.stage, 'T')",
        "'a' < sequence",
        "ceil(to_number('1e999'))",
        "sum(data.status)",
    ],
)
def test_filter_that_cannot_be_evaluated_says_so(text: str) -> None:
    compile_filter(text)
    with pytest.raises(ValueError, match=r"\w"):
        evaluate(text, ENVELOPE)


def test_deeply_nested_event_is_an_evaluation_failure_not_a_crash() -> None:
    deep = orjson.loads(b"[" * 1000 + b"]" * 1000)
    other = orjson.loads(b"[" * 1000 + b"]" * 1000)
    try:
        found = evaluate("data.a == data.b", {"data": {"a": deep, "b": other}})
    except ValueError:
        return  # the comparison ran out of stack
    assert found
