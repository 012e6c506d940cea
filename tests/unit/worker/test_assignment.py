"""Every slot's connections are accepted, whoever of the workers is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.worker.assignment import SLOTS, Assignment, share_out
from tests.unit.worker.doubles import FakeMember


@dataclass(frozen=True)
class Answering:
    slot: int


def shares(slots: int, *answering: int) -> dict[int, tuple[int, ...]]:
    found = share_out(slots, cast("Any", [Answering(each) for each in answering]))
    return {member.slot: each for member, each in found.items()}


def test_each_has_its_own_while_all_are_there() -> None:
    assert shares(3, 0, 1, 2) == {0: (0,), 1: (1,), 2: (2,)}


def test_those_without_one_are_shared_by_the_others() -> None:
    assert shares(5, 0, 3) == {0: (0, 1, 4), 3: (2, 3)}


def test_with_nobody_there_nobody_has_any() -> None:
    assert shares(2) == {}


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_every_slot_is_one_workers_and_they_are_shared_evenly(case: tuple[int, set[int]]) -> None:
    slots, answering = case
    found = shares(slots, *sorted(answering))

    taken = Counter(slot for each in found.values() for slot in each)
    assert taken == (dict.fromkeys(range(slots), 1) if answering else {})
    if answering:
        sizes = [len(each) for each in found.values()]
        assert max(sizes) - min(sizes) <= 1


async def test_a_worker_is_told_when_it_has_others_slots_and_when_no_longer() -> None:
    first, second = FakeMember(0), FakeMember(1)
    assignment = Assignment(2)

    await assignment.share_out([first, second])
    assert first.asked == second.asked == []  # their own they have already

    await assignment.share_out([first])
    await assignment.share_out([first])
    await assignment.share_out([first, FakeMember(1)])

    assert first.asked == [("PUT", SLOTS, b"[0,1]"), ("PUT", SLOTS, b"[0]")]


async def test_one_that_could_not_be_told_is_told_again() -> None:
    member = FakeMember(0)

    def silent(*_: object) -> bytes:
        raise ConnectionResetError

    answers, member.answers = member.answers, silent
    assignment = Assignment(2)
    await assignment.share_out([member])
    member.answers = answers

    await assignment.share_out([member])
    await assignment.share_out([member])

    assert member.asked == [("PUT", SLOTS, b"[0,1]")] * 2
