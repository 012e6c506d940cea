"""What `Prefer` says of waiting."""

from __future__ import annotations

import pytest

from gateway.core.preference import wait_seconds, without_wait


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        (["wait=30"], 30),
        (["WAIT = 30"], 30),
        (['wait="30"'], 30),
        (["wait=0"], 0),
        (["respond-async, wait=100"], 100),
        (["respond-async", "wait=5"], 5),
        (["wait=5; reason=x"], 5),
        (['foo="a, wait=1", wait=2'], 2),
        (["wait=1, wait=2"], 1),
        (["wait=soon, wait=2"], 2),
        ([], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=9999999999"], None),
        (["waiting=3"], None),
        (['foo="wait=3'], None),
        (["return=minimal"], None),
    ],
)
def test_the_first_readable_wait_counts(fields: list[str], seconds: int | None) -> None:
    assert wait_seconds(fields) == seconds


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        (["wait=30"], []),
        (["respond-async, wait=10", "return=minimal"], ["respond-async", "return=minimal"]),
        (['foo="a, b"; c=d, wait=1'], ['foo="a, b"; c=d']),
        ([], []),
    ],
)
def test_other_preferences_are_left_as_they_are(fields: list[str], left: list[str]) -> None:
    assert without_wait(fields) == left
