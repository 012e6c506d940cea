"""Who gets the next slot."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.share import Shares


def test_sizes_halve_from_a_destinations_share_to_one() -> None:
    assert list(Shares(64, 4).sizes) == [4, 2, 1]
    assert list(Shares(64, 1).sizes) == [1]


def test_destination_without_room_for_a_claim_is_passed_over() -> None:
    shares = Shares(64, 4)
    shares.begin("a")
    assert [shares.passed_over(size) for size in (4, 2, 1)] == [["a"], [], []]


def test_failing_ones_share_half_of_the_slots() -> None:
    shares = Shares(8, 2)
    assert (shares.are_failing, shares.failing_room) == (False, 8)
    for name in "abcd":
        shares.begin(name)
        shares.end(name, failed=True)
    for name in "abc":
        shares.begin(name)
    assert (shares.are_failing, shares.failing_room) == (True, 1)
    assert shares.passed_over(1) == []
    assert sorted(shares.passed_over(1, failing=True)) == ["a", "b", "c", "d"]
    shares.end("a", failed=False)
    assert shares.failing_room == 2
    assert sorted(shares.passed_over(1, failing=True)) == ["b", "c", "d"]


def test_lane_of_one_destination_keeps_no_slots_for_others() -> None:
    shares = Shares(4, 4)
    shares.begin("convex")
    shares.end("convex", failed=True)
    assert shares.failing_room == 4


def test_served_ones_wait_until_a_round_begins() -> None:
    shares = Shares(64, 4)
    shares.serve(["a", "b"])
    assert sorted(shares.passed_over(1)) == ["a", "b"]
    assert shares.begin_round()
    assert shares.passed_over(1) == []
    assert not shares.begin_round()


def test_round_names_a_bounded_number() -> None:
    shares = Shares(64, 4)
    for number in range(5000):
        shares.serve([f"wh_{number}"])
        assert len(shares.passed_over(1)) <= 1000


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.booleans())))
def test_what_is_counted_as_failing_is_what_is_in_flight_there(
    steps: list[tuple[str, bool, bool]],
) -> None:
    shares = Shares(8, 4)
    in_flight: Counter[str] = Counter()
    failing: set[str] = set()
    for name, begins, failed in steps:
        if begins:
            shares.begin(name)
            in_flight[name] += 1
        elif in_flight[name]:
            shares.end(name, failed=failed)
            in_flight[name] -= 1
            failing = failing | {name} if failed else failing - {name}
        assert shares._failing_in_flight == sum(in_flight[each] for each in failing)
