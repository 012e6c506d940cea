"""Trace contexts are read strictly, and spans belong where they should."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.trace import (
    MAX_STATE,
    Kind,
    Span,
    TraceContext,
    is_within,
    parse_traceparent,
    parse_tracestate,
    trace_ids,
)

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
# The grammar of section 3.2, written apart from what is tested.
GRAMMAR = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?",
    re.DOTALL,
)
HEX = "0123456789abcdef"


def digits(count: int) -> st.SearchStrategy[str]:
    """About this many hex digits, mostly as many, or as many zeros."""
    exact = st.text(HEX, min_size=count, max_size=count)
    return exact | st.text(HEX, min_size=count - 1, max_size=count + 1) | st.just("0" * count)


class Recorded:
    """A recorder whose ids are 1, 2, 3 …"""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._number = 0

    def new_span_id(self) -> str:
        self._number += 1
        return f"{self._number:016x}"

    def record(self, span: Span) -> None:
        self.spans.append(span)


def span(recorder: Recorded, flags: int = 1, state: str = "") -> Span:
    context = TraceContext(TRACE_ID, SPAN_ID, flags, state)
    return Span("GET /", Kind.SERVER, context, None, 10.0, recorder)


def test_a_valid_traceparent_is_read() -> None:
    assert parse_traceparent(TRACEPARENT) == TraceContext(TRACE_ID, SPAN_ID, 1)


@pytest.mark.parametrize("more", ["", "-", "-more"])
def test_a_later_version_is_read_as_far_as_this_one_goes(more: str) -> None:
    context = parse_traceparent(f"01-{TRACE_ID}-{SPAN_ID}-01{more}")

    assert context is not None
    assert context.traceparent == TRACEPARENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "junk",
        TRACEPARENT.upper(),
        f" {TRACEPARENT}",
        TRACEPARENT[:-1],
        f"{TRACEPARENT}-more",
        f"{TRACEPARENT}-",
        f"{TRACEPARENT}.",
        f"{TRACEPARENT}\n",
        f"01-{TRACE_ID}-{SPAN_ID}-01more",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0x",
        f"00-{TRACE_ID}-{SPAN_ID}-\u0660\u0661",
    ],
)
def test_a_malformed_traceparent_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


PARTS = st.tuples(
    st.sampled_from(["00", "01", "cc", "ff", "0", "zz"]),
    st.text(HEX, min_size=31, max_size=33)
    | st.text(HEX, min_size=32, max_size=32)
    | st.just("0" * 32),
    st.text(HEX, min_size=15, max_size=17)
    | st.text(HEX, min_size=16, max_size=16)
    | st.just("0" * 16),
    st.text(HEX + "g", min_size=2, max_size=2),
    st.sampled_from(["", "-", "-x", "x", "-\n"]),
)


@given(st.text() | PARTS.map(lambda parts: "-".join(parts[:4]) + parts[4]))
def test_what_is_read_is_what_the_grammar_says(text: str) -> None:
    found = GRAMMAR.fullmatch(text)
    is_valid = found is not None and not (text.startswith("00") and found["more"] is not None)
    is_valid = is_valid and "\n" not in text  # no field value has one (RFC 9110 section 5.5)

    context = parse_traceparent(text)

    assert (context is not None) == is_valid
    if context is not None:
        assert parse_traceparent(context.traceparent) == context
        assert context.traceparent[3:52] == text[3:52]


@given(st.integers(0, 255))
def test_flags_that_are_not_known_are_not_passed_on(flags: int) -> None:
    context = parse_traceparent(f"00-{TRACE_ID}-{SPAN_ID}-{flags:02x}")

    assert context is not None
    assert context.is_sampled == bool(flags & 1)
    assert int(context.traceparent[-2:], 16) == flags & 3


def test_members_of_several_fields_are_one_state() -> None:
    assert parse_tracestate(["a=1, b=2", "\tc@d=x y ", " , "]) == "a=1,b=2,c@d=x y"


@pytest.mark.parametrize(
    "values",
    [
        ["a"],
        ["a=1", "b"],
        ["A=1"],
        ["=1"],
        ["a="],
        ["a=1,a=2"],
        ["a=x=y"],
        ["a=\x7f"],
        ["a=é"],
        [f"a={'x' * 257}"],
        [f"{'a' * 257}=1"],
        [",".join(f"k{number}=v" for number in range(33))],
    ],
)
def test_one_bad_member_discards_the_state(values: list[str]) -> None:
    assert parse_tracestate(values) == ""


def test_too_long_a_state_loses_its_large_members_first_and_then_its_last() -> None:
    large = f"big={'x' * 200}"
    small = [f"k{number:02}={'v' * 40}" for number in range(11)]  # 44 characters each

    assert parse_tracestate([small[0], large, *small[1:]]) == ",".join(small)
    assert parse_tracestate([*small, "last=1234567890123"]) == ",".join(small)


KEYS = st.text("abz019_-*/@", min_size=1, max_size=300)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F), max_size=300)


@given(st.lists(st.tuples(KEYS, VALUES).map("=".join), max_size=40))
def test_a_state_is_bounded_and_reads_as_itself(members: list[str]) -> None:
    state = parse_tracestate(members)

    assert len(state) <= MAX_STATE
    assert parse_tracestate([state]) == state


@pytest.mark.parametrize(
    ("trace_id", "ratio", "within"),
    [
        ("f" * 16 + "0" * 16, 0.0, False),
        ("f" * 16 + "0" * 16, 1e-9, True),
        ("0" * 16 + "f" * 16, 0.5, False),
        ("0" * 16 + "7" + "f" * 15, 0.5, True),
        ("0" * 16 + "8" + "0" * 15, 0.5, False),
        ("f" * 32, 1.0, True),
    ],
)
def test_the_ratio_is_held_against_the_ids_last_half(
    trace_id: str, ratio: float, *, within: bool
) -> None:
    assert is_within(trace_id, ratio) is within


def test_a_child_is_of_the_same_trace_and_names_its_parent() -> None:
    recorder = Recorded()
    child = span(recorder, state="a=1").child("POST", Kind.CLIENT, 11.0)

    assert child.parent_id == SPAN_ID
    assert child.context == TraceContext(TRACE_ID, f"{1:016x}", 1, "a=1")


def test_a_span_is_recorded_when_it_ends_and_is_sampled() -> None:
    recorder = Recorded()
    sampled, unsampled = span(recorder), span(recorder, flags=0)

    sampled.end(12.5, {"a": 1}, is_error=True)
    unsampled.end(12.5, {"a": 1})

    assert recorder.spans == [sampled]
    assert (sampled.ended_at, sampled.attributes, sampled.is_error) == (12.5, {"a": 1}, True)


def test_a_clock_set_back_makes_no_span_that_ends_before_it_begins() -> None:
    recorder = Recorded()
    span(recorder).end(9.0, {})

    assert recorder.spans[0].ended_at == 10.0


def test_only_a_sampled_span_is_an_exemplar() -> None:
    ids = {"trace_id": TRACE_ID, "span_id": SPAN_ID}

    assert span(Recorded()).exemplar == span(Recorded()).ids == ids
    assert span(Recorded(), flags=0).exemplar is None
    assert span(Recorded(), flags=0).ids == ids


def test_ids_for_a_log_line_are_those_of_a_traceparent() -> None:
    assert trace_ids(TRACEPARENT) == {"trace_id": TRACE_ID, "span_id": SPAN_ID}
    assert trace_ids("junk") == trace_ids(None) == {}
