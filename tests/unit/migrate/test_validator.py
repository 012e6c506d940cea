"""Convex's validators: what they refuse, and what a change of one refuses that was taken before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.migrate.validator import Validator, describe, narrowings, violations
from tests.support.convex_validator import (
    ANY,
    BOOLEAN,
    NULL,
    NUMBER,
    STRING,
    array,
    literal,
    obj,
    record,
    union,
)


@pytest.mark.parametrize(
    ("validator", "value"),
    [
        (STRING, "a"),
        (NUMBER, 1.5),
        (NUMBER, 7),
        (NUMBER, "NaN"),  # as JSON says it
        (BOOLEAN, True),
        (NULL, None),
        ({"type": "bigint"}, "9007199254740993"),
        ({"type": "bytes"}, "AAEC"),
        ({"type": "id", "tableName": "videos"}, "j57"),
        (ANY, {"anything": [None]}),
        (literal("queued"), "queued"),
        (union(literal("queued"), NUMBER), 3.0),
        (array(STRING), []),
        (record(NUMBER), {"a": 1.0}),
        (obj(a=STRING, b_=NUMBER), {"a": "x"}),
        (obj(a=STRING, b_=NUMBER), {"a": "x", "b": 1.0}),
    ],
)
def test_value_that_fits_has_no_violations(validator: Validator, value: object) -> None:
    assert list(violations(validator, value)) == []


@pytest.mark.parametrize(
    ("validator", "value", "expected"),
    [
        (STRING, 1.0, "the document is 1.0, not string"),
        (NUMBER, True, "the document is True, not number"),
        (NUMBER, "1", "the document is '1', not number"),
        (BOOLEAN, 1, "the document is 1, not boolean"),
        (literal(1.0), True, "the document is True, not 1.0"),
        (union(literal("a"), NULL), "b", "the document is 'b', not 'a' or null"),
        (array(STRING), "a", "the document is 'a', not an array of string"),
        (array(STRING), ["a", 1], "[1] is 1, not string"),
        (record(NUMBER), [], "the document is [], not a record of number"),
        (record(NUMBER), {"a": "x"}, "a is 'x', not number"),
        (obj(a=STRING), [], "the document is [], not an object"),
        (obj(a=STRING), {}, "a is missing"),
        (obj(a_=STRING), {"a": None}, "a is None, not string"),
        (obj(), {"b": 1}, "b is not in the schema"),
        (obj(a=obj(b=array(NUMBER))), {"a": {"b": [1, "x"]}}, "a.b[1] is 'x', not number"),
    ],
)
def test_violation_says_what_is_wrong_and_where(
    validator: Validator, value: object, expected: str
) -> None:
    assert list(violations(validator, value)) == [expected]


def test_long_value_is_shown_in_part() -> None:
    (text,) = violations(NUMBER, "x" * 1000)
    assert len(text) < 120


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (STRING, STRING),
        (STRING, ANY),
        (literal("a"), STRING),
        (literal(1.0), NUMBER),
        (literal(True), BOOLEAN),
        (STRING, union(STRING, NULL)),
        (union(literal("a"), literal("b")), union(literal("b"), literal("c"), literal("a"))),
        (union(literal("a"), literal("b")), STRING),
        (array(literal("a")), array(STRING)),
        (record(literal(1.0)), record(NUMBER)),
        (obj(a=STRING), obj(a_=STRING)),
        (obj(a=STRING), obj(a=STRING, b_=NUMBER)),
    ],
)
def test_widening_is_no_narrowing(old: Validator, new: Validator) -> None:
    assert list(narrowings(old, new)) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (STRING, NUMBER, "takes the document as number, not as string"),
        (ANY, STRING, "takes the document as string, not as any"),
        (STRING, literal("a"), "takes the document as 'a', not as string"),
        (literal(True), NUMBER, "takes the document as number, not as True"),
        (union(STRING, NULL), STRING, "takes the document as string, not as null"),
        (union(literal("a"), literal("b")), literal("a"), "takes the document as 'a', not as 'b'"),
        (NULL, union(STRING, NUMBER), "takes the document as string or number, not as null"),
        (array(STRING), array(NUMBER), "takes [] as number, not as string"),
        (array(STRING), record(STRING), "takes the document as a record of string, not as an"),
        (record(STRING), record(NUMBER), "takes * as number, not as string"),
        (obj(a=STRING), obj(), "takes no a"),
        (obj(a_=STRING), obj(a=STRING), "requires a"),
        (obj(), obj(a=STRING), "requires a"),
        (obj(a=obj(b=STRING)), obj(a=obj(b=NUMBER)), "takes a.b as number, not as string"),
        (
            {"type": "id", "tableName": "videos"},
            {"type": "id", "tableName": "jobs"},
            "takes the document as an id of jobs, not as an id of videos",
        ),
    ],
)
def test_narrowing_says_what_is_no_longer_taken(
    old: Validator, new: Validator, expected: str
) -> None:
    (text,) = narrowings(old, new)
    assert text.startswith(expected)


SCALARS = st.sampled_from([STRING, NUMBER, BOOLEAN, NULL, literal("a"), literal(1.0)])
VALIDATORS = st.recursive(
    SCALARS,
    lambda inner: (
        st.builds(array, inner)
        | st.lists(inner, min_size=1, max_size=3).map(lambda members: union(*members))
        | st.dictionaries(st.sampled_from(["a", "b", "a_", "b_"]), inner, max_size=2).map(
            lambda fields: obj(**fields)
        )
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from(["a", "b", 1.0, 2.0]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(old=VALIDATORS, new=VALIDATORS, value=VALUES)
def test_what_narrows_nothing_refuses_nothing_that_was_taken(
    old: Validator, new: Validator, value: Any
) -> None:
    if not any(violations(old, value)) and not any(narrowings(old, new)):
        assert list(violations(new, value)) == []


@given(validator=VALIDATORS)
def test_nothing_narrows_itself(validator: Validator) -> None:
    assert list(narrowings(validator, validator)) == []
    assert describe(validator)
