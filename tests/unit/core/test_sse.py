"""Server-sent events as they come off the wire."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.sse import EventParser, ServerEvent, encode_event

SAMPLES = Path(__file__).parents[3] / "tests" / "data" / "upstream"


def parse(
    stream: bytes, *, cuts: tuple[int, ...] = (), limit: int | None = None
) -> list[ServerEvent]:
    """The events of a stream that arrives cut at `cuts`."""
    parser = EventParser() if limit is None else EventParser(limit)
    edges = [0, *sorted(cuts), len(stream)]
    return [event for start, end in pairwise(edges) for event in parser.feed(stream[start:end])]


def data(events: list[ServerEvent]) -> list[bytes]:
    return [event.data for event in events]


@pytest.mark.parametrize("name", ["stream-completed.txt", "stream-failed.txt"])
def test_upstream_s_streams(name: str) -> None:
    events = parse((SAMPLES / name).read_bytes())
    last = "completed" if "completed" in name else "failed"
    assert events[0].name == "connected"
    assert {event.name for event in events[1:-2]} == {"progress"}
    assert [event.name for event in events[-2:]] == [last, "stream_ended"]


@pytest.mark.parametrize("name", ["stream-completed.txt", "stream-failed.txt"])
def test_stream_cut_into_single_bytes_is_the_same(name: str) -> None:
    stream = (SAMPLES / name).read_bytes()
    assert parse(stream, cuts=tuple(range(len(stream)))) == parse(stream)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_ending_counts(end: bytes) -> None:
    stream = end.join([b"event: a", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])
    expected = [ServerEvent("a", b"1\n2"), ServerEvent("message", b"3")]
    assert parse(stream) == expected
    assert parse(stream, cuts=tuple(range(len(stream)))) == expected


def test_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    parser = EventParser()
    assert parser.feed(b"data: 1\r\n") == []
    assert data(parser.feed(b"\r")) == [b"1"]
    assert parser.feed(b"\ndata: 2") == []
    assert data(parser.feed(b"\r\r")) == [b"2"]


def test_carriage_return_and_line_feed_in_two_chunks_are_one_ending() -> None:
    parser = EventParser()
    assert parser.feed(b"event: a\r") == []
    assert parser.feed(b"") == []
    assert parser.feed(b"\ndata: 1\r") == []
    assert parser.feed(b"\n\r\n") == [ServerEvent("a", b"1")]


def test_byte_order_mark_is_not_part_of_the_first_field() -> None:
    stream = b"\xef\xbb\xbfdata: 1\n\n\xef\xbb\xbfdata: 2\n\ndata: 3\n\n"
    assert data(parse(stream)) == [b"1", b"3"]
    assert data(parse(stream, cuts=(1, 2))) == [b"1", b"3"]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b"data: 1", b"1"),
        (b"data:1", b"1"),
        (b"data:  1", b" 1"),
        (b"data:", b""),
        (b"data", b""),
        (b"data: a:b", b"a:b"),
    ],
)
def test_value_follows_the_colon_and_one_space(line: bytes, value: bytes) -> None:
    assert data(parse(line + b"\n\n")) == [value]


@pytest.mark.parametrize(
    "line", [b": comment", b":", b"retry: 10", b"Data: 1", b" data: 1", b"dat: 1", b"\xff\xfe: 1"]
)
def test_comments_and_unknown_fields_are_passed_over(line: bytes) -> None:
    assert parse(line + b"\n\n") == []
    assert data(parse(b"data: 1\n" + line + b"\ndata: 2\n\n")) == [b"1\n2"]


def test_event_without_data_is_none_and_its_name_is_forgotten() -> None:
    assert parse(b"event: a\n\ndata: 1\n\n") == [ServerEvent("message", b"1")]


def test_id_stays_until_another_is_set() -> None:
    events = parse(b"id: 7\ndata: 1\n\ndata: 2\n\nid: x\0y\ndata: 3\n\nid\ndata: 4\n\n")
    assert [event.id for event in events] == ["7", "7", "7", ""]


def test_unfinished_event_is_not_given() -> None:
    assert parse(b"event: a\ndata: 1\n") == []


def test_name_that_is_not_utf_8_is_replaced() -> None:
    assert parse(b"event: \xff\ndata: 1\n\n")[0].name == "\ufffd"


class TestBound:
    def test_event_of_exactly_the_limit_is_given(self) -> None:
        assert data(parse(b"data: 1234567\n\n", limit=8)) == [b"1234567"]

    def test_event_over_the_limit_is_dropped_and_the_next_given(self) -> None:
        stream = b"data: 123456\ndata: 789\nevent: a\n\nevent: b\ndata: 1\n\n"
        assert parse(stream, limit=8) == [ServerEvent("b", b"1")]

    @pytest.mark.parametrize("cut", range(8, 40))
    def test_line_over_the_limit_drops_its_whole_event_wherever_it_is_cut(self, cut: int) -> None:
        stream = b"event: a\ndata: 0123456789012345678901\ndata: tail\n\nevent: b\ndata: 1\n\n"
        assert parse(stream, cuts=(cut,), limit=20) == [ServerEvent("b", b"1")]

    @pytest.mark.parametrize("end", [b"\r", b"\r\n"])
    def test_end_of_a_line_over_the_limit_is_found_in_any_form(self, end: bytes) -> None:
        stream = end.join([b"data: " + b"0" * 30, b"", b"data: 1", b"", b""])
        for cut in range(20, 42):
            assert data(parse(stream, cuts=(cut,), limit=20)) == [b"1"]

    def test_empty_data_lines_count_too(self) -> None:
        parser = EventParser(100)
        for _ in range(1000):
            parser.feed(b"data:\n")
        assert len(parser._data) <= 100
        assert parser.feed(b"\n") == []

    def test_nothing_is_kept_of_an_endless_line(self) -> None:
        parser = EventParser(100)
        for _ in range(1000):
            assert parser.feed(b"x" * 50) == []
        assert len(parser._rest) <= 150


LINES = st.sampled_from(
    [b"data: 1", b"data", b"event: a", b"id: 7", b": c", b"", b"", b"data: \xc3\xa9", b"retry: 1"]
)


@given(
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=20),
    st.data(),
)
def test_events_do_not_depend_on_the_chunks(
    lines: list[tuple[bytes, bytes]], drawn: st.DataObject
) -> None:
    stream = b"".join(line + end for line, end in lines)
    cuts = drawn.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    assert parse(stream, cuts=tuple(cuts)) == parse(stream)


@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1),
    data=st.binary().filter(lambda data: b"\r" not in data),
    number=st.none() | st.integers(0),
)
def test_an_event_written_reads_back_as_it_was(name: str, data: bytes, number: int | None) -> None:
    written = encode_event(ServerEvent(name, data), number)
    (read,) = EventParser().feed(written)
    assert (read.name, read.data) == (name, data)
    assert read.id == (None if number is None else str(number))


def test_an_event_is_written_as_the_upstream_did() -> None:
    sample = (SAMPLES / "stream-completed.txt").read_bytes()
    events = EventParser().feed(sample)
    assert b"".join(map(encode_event, events)) == sample
    assert encode_event(events[1], 7) == encode_event(events[1])[:-1] + b"id: 7\n\n"
