"""Where WebSocket frames end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.websocket import GOING_AWAY, FrameTracker


def frame(payload: int, *, masked: bool) -> bytes:
    mask = 0x80 if masked else 0
    if payload < 126:
        head = bytes([0x82, mask | payload])
    elif payload < 65536:
        head = bytes([0x82, mask | 126]) + payload.to_bytes(2)
    else:
        head = bytes([0x82, mask | 127]) + payload.to_bytes(8)
    return head + (b"\x01\x02\x03\x04" if masked else b"") + b"\x88" * payload


SIZES = st.sampled_from([0, 1, 125, 126, 127, 65535, 65536])


@given(
    frames=st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=4),
    step=st.integers(1, 70_000),
)
def test_frames_end_where_they_end_however_they_are_cut(
    frames: list[tuple[int, bool]], step: int
) -> None:
    whole = [frame(size, masked=masked) for size, masked in frames]
    data, ends, total = b"".join(whole), set(), 0
    for each in whole:
        total += len(each)
        ends.add(total)
    tracker, at = FrameTracker(), 0
    step = max(step, len(data) // 500)
    while at < len(data):
        tracker.feed(data[at : at + step])
        at = min(at + step, len(data))
        assert tracker.is_between_frames() == (at in ends)


def test_the_rest_of_a_frame_can_be_told_from_the_next() -> None:
    tracker = FrameTracker()
    first, second = frame(10, masked=False), frame(3, masked=False)
    tracker.feed(first[:5])

    assert tracker.finish_frame(first[5:] + second) == len(first) - 5
    assert tracker.is_between_frames()


def test_the_close_of_a_server_that_goes_away_is_one_frame() -> None:
    tracker = FrameTracker()
    tracker.feed(GOING_AWAY)

    assert tracker.is_between_frames()
    assert int.from_bytes(GOING_AWAY[2:]) == 1001
