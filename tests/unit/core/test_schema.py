"""Violations of a JSON Schema, each at its field."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.schema import MAX_VIOLATIONS, Schema
from gateway.core.violation import Violations

CONFIG = {"type": "object", "properties": {"method": {"enum": ["auto", "fast"]}}}


def judged(schema: Any, instance: Any, *path: str) -> list[tuple[str, str]]:
    violations = Violations()
    Schema(schema).judge(instance, violations, *path)
    return [(error["pointer"], error["detail"]) for error in violations.errors]


@pytest.mark.parametrize(
    ("schema", "instance", "expected"),
    [
        ({"type": "string"}, "x", []),
        ({"type": "string"}, 1, [("#", 'is not of type "string"')]),
        ({"required": ["a", "b"]}, {"a": 1}, [("#/b", "is required")]),
        (
            {"properties": {"a": {}}, "additionalProperties": False},
            {"a": 1, "x~/y": 2},
            [("#/x~0~1y", "is not a known field")],
        ),
        (
            {"properties": {"a": {"items": {"maxLength": 2}}}},
            {"a": ["ok", "long"]},
            [("#/a/1", "is longer than 2 characters")],
        ),
        (
            {
                "properties": {"c": {"anyOf": [{"$ref": "#/$defs/C"}, {"type": "null"}]}},
                "$defs": {"C": CONFIG},
            },
            {"c": {"method": "slow"}},
            [("#/c/method", 'is not one of "auto" or "fast"')],
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            [],
            [("#", "fits none of what is allowed here")],
        ),
    ],
)
def test_each_violation_is_at_its_field(
    schema: Any, instance: Any, expected: list[tuple[str, str]]
) -> None:
    assert judged(schema, instance) == expected


def test_values_are_not_repeated() -> None:
    [(_, said)] = judged({"const": "a"}, "my-secret-value")

    assert "secret" not in said


def test_the_place_of_the_value_comes_first() -> None:
    assert judged({"type": "string"}, 1, "body")[0][0] == "#/body"


def test_their_number_is_bounded() -> None:
    assert len(judged({"items": {"type": "string"}}, list(range(1000)))) == MAX_VIOLATIONS


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"$ref": "#/$defs/none"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"pattern": "("},
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_without_a_request(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Schema(schema)
