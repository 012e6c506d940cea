"""How long until one of the active jobs ends, judged by how long others took."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence


def expected_wait_seconds(
    ages: Iterable[float], durations: Sequence[float], default: float
) -> float:
    """Seconds until the first of the jobs with these ages has likely ended.

    Of those that took longer than a job is old, half took no longer than its likely duration; a job
    older than all of them tells nothing. `default` is for when none does.
    """
    known = sorted(durations)
    waits = []
    for age in ages:
        longer = known[bisect_right(known, age) :]
        if longer:
            waits.append(longer[(len(longer) - 1) // 2] - age)
    return min(waits, default=default)
