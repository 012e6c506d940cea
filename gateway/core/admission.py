"""Places for jobs: who shares how many of them, and how long until one becomes free."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Holder(Protocol):
    """What has a place: an active job, or its creation; `key` is as of `Job.key`."""

    @property
    def owner(self) -> str:
        """Whose it is."""
        ...

    @property
    def key(self) -> str | None:
        """The key it was created with."""
        ...


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `limit` places for all who are counted in `group`; `whose` says who that is."""

    group: str
    limit: int
    whose: str = ""
    owner: str | None = None
    key: str | None = None

    def counts(self, holder: Holder) -> bool:
        """True for a holder that takes one of these places."""
        if self.owner is not None and holder.owner != self.owner:
            return False
        return self.key is None or holder.key == self.key


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many places there are in all, for one owner and for one key; None: no such bound."""

    in_all: int
    per_owner: int | None = None
    per_key: int | None = None

    def on(self, holder: Holder) -> tuple[Bound, ...]:
        """Every bound that a holder counts in, the widest first."""
        found = [Bound("all", self.in_all)]
        if self.per_owner is not None:
            owner = holder.owner
            found.append(Bound(f"owner:{owner}", self.per_owner, " of yours", owner=owner))
        if self.per_key is not None and holder.key is not None:
            key = holder.key
            found.append(Bound(f"key:{key}", self.per_key, " of this key", key=key))
        return tuple(found)


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
