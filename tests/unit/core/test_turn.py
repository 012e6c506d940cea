"""Turns come in order, evenly spread, and to everyone."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.core.turn import SLOT_SECONDS, Turns

KEYS = st.sampled_from("abcdefgh")
TIMES = st.floats(0, 1000, allow_nan=False)


class Model(RuleBasedStateMachine):
    """Turns behave as a plain mapping of which the smallest is looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns()
        self.plain: dict[str, float] = {}

    @rule(key=KEYS, at=TIMES)
    def put(self, key: str, at: float) -> None:
        self.turns.put(key, at)
        self.plain[key] = at

    @rule(key=KEYS, earliest=TIMES, width=st.floats(0, 50))
    def put_within(self, key: str, earliest: float, width: float) -> None:
        at = self.turns.put_within(key, earliest, earliest + width)
        assert earliest <= at <= earliest + width
        self.plain[key] = at

    @rule(key=KEYS)
    def drop(self, key: str) -> None:
        self.turns.drop(key)
        self.plain.pop(key, None)

    @rule(now=TIMES)
    def take(self, now: float) -> None:
        key = self.turns.take(now)
        if key is None:
            assert all(at > now for at in self.plain.values())
        else:
            assert self.plain[key] == min(self.plain.values()) <= now
            del self.plain[key]

    @invariant()
    def is_the_same(self) -> None:
        assert len(self.turns) == len(self.plain)
        assert self.turns.next_at() == min(self.plain.values(), default=None)
        assert {key: self.turns.at(key) for key in self.plain} == self.plain
        assert all(key in self.turns for key in self.plain)
        assert sum(self.turns._slots.values()) == len(self.plain)
        assert len(self.turns._heap) <= 2 * len(self.plain) + 64


TestTurns = Model.TestCase
TestTurns.settings = settings(max_examples=40)


@settings(max_examples=20)
@given(count=st.integers(100, 300), interval=st.floats(4, 15))
def test_turns_that_began_in_one_moment_spread_out_evenly(count: int, interval: float) -> None:
    turns = Turns()
    for number in range(count):
        turns.put(str(number), 0.0)
    asked: Counter[int] = Counter()
    until = 9 * interval
    while (at := turns.next_at()) is not None and at < until:
        key = turns.take(at)
        assert key is not None
        asked[int(at)] += 1
        turns.put_within(key, at + 0.5 * interval, at + interval)
    settled = [asked[second] for second in range(int(6 * interval), int(until) - 1)]
    mean = sum(settled) / len(settled)
    # All of them were asked in one second at first.
    assert max(settled) <= 2 * mean + 3


@settings(max_examples=30)
@given(
    intervals=st.lists(st.floats(1, 15), min_size=2, max_size=60),
    capacity=st.integers(1, 10),
)
def test_nobody_waits_longer_than_a_round_of_all_when_there_is_too_much_to_do(
    intervals: list[float], capacity: int
) -> None:
    """However fast others come back, everyone's turn comes before theirs has come twice."""
    turns = Turns()
    for number in range(len(intervals)):
        turns.put(str(number), 0.0)
    last = dict.fromkeys(map(str, range(len(intervals))), 0.0)
    now, round_seconds = 0.0, len(intervals) / capacity
    for _ in range(20 * len(intervals)):
        now += 1 / capacity
        key = turns.take(now)
        if key is not None:
            assert now - last[key] <= intervals[int(key)] + 2 * round_seconds + SLOT_SECONDS
            last[key] = now
            interval = intervals[int(key)]
            turns.put_within(key, now + 0.5 * interval, now + interval)
    assert all(now - at <= 15 + 2 * round_seconds + SLOT_SECONDS for at in last.values())
