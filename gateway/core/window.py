"""The arithmetic of sliding-window rate limits: one function, whatever stores the state.

A window is cut into 100 buckets, and a hit counts as long as any part of its bucket may lie within
the window. So no span of `window_seconds` ever holds more than the limit, a hit is forgotten at
most 1 % of the window late, and a key costs the same memory however high its limit is. Time is
whole microseconds here: sums of floats would let a hit slip out at the window's edge, and Lua's
numbers hold these exactly (`store/redis/window.lua` computes the same).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

BUCKETS = 100
SLOTS = BUCKETS + 1  # the window may begin within a bucket, which then counts whole
MICROSECONDS = 1_000_000
MAX_LIMIT = 1_000_000_000  # a count is 32 bits


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `limit` in any `window_seconds`, under the name `policy`.

    A `shadow` quota is decided and counted, but what it refuses is admitted by the others all the
    same. `bucket` is the width of a bucket in microseconds, rounded up: one too wide forgets late,
    one too narrow would forget early. `family` names the windows that may share counts: a changed
    limit keeps them, another length of the window does not.
    """

    policy: str
    limit: int
    window_seconds: float
    shadow: bool = False
    bucket: int = field(init=False)
    family: str = field(init=False)

    def __post_init__(self) -> None:
        width = max(1, -(-round(self.window_seconds * MICROSECONDS) // BUCKETS))
        object.__setattr__(self, "bucket", width)
        object.__setattr__(self, "family", f"{self.policy}:{width}")


class Hit(NamedTuple):
    """One quota that a request counts against.

    `key` is who it counts for (`ip:203.0.113.7`), `cost` how much this request counts. `tag` is
    what the keys of one request have in common, so that a cluster keeps them on one node. A tuple,
    for one is made in each request.
    """

    quota: Quota
    key: str
    cost: int = 1
    tag: str = ""


class WindowState(NamedTuple):
    """What a quota says to a request.

    `remaining` counts after it; `reset_seconds` is when some quota comes back,
    `retry_after_seconds` when this request would be admitted (0 if it is).
    """

    admitted: bool
    remaining: int
    reset_seconds: float
    retry_after_seconds: float


class Window:
    """What one quota has admitted for one key: a ring of counts, a bucket a slot.

    Bucket `i` holds the hits of `[i, i + 1)` bucket widths since the epoch, in slot `i` modulo 101.
    `total` is how many hits count, as of the last `advance`. Times are epoch microseconds.
    """

    __slots__ = ("_counts", "_latest", "_oldest", "_width", "total")

    def __init__(self, width: int) -> None:
        self._width = width
        # 32 bits a count: a bucket holds at most the limit, in 1 % of its window.
        self._counts = array("I", bytes(4 * SLOTS))
        self._latest = 0
        self._oldest = 0
        self.total = 0

    def advance(self, now: int) -> None:
        """Forget what no longer counts at `now`."""
        index = now // self._width
        passed = index - self._latest
        if not passed:
            return
        if passed < 0:
            self._rewind(index)
        elif passed > BUCKETS or not self.total:
            self._clear()
        else:
            counts = self._counts
            for slot in (each % SLOTS for each in range(self._latest + 1, index + 1)):
                self.total -= counts[slot]
                counts[slot] = 0
        self._latest = index

    def add(self, cost: int) -> None:
        """Count a hit at the time of the last `advance`."""
        if not self.total:
            self._oldest = self._latest
        self._counts[self._latest % SLOTS] += cost
        self.total += cost

    def frees_in(self, quota: int, now: int) -> float:
        """Seconds from `now` until `quota` hits no longer count; until all are gone if more."""
        if not self.total:
            return 0.0
        counts, latest = self._counts, self._latest
        last = self._oldest
        last = max(last, latest - BUCKETS)
        while not counts[last % SLOTS]:
            last += 1
        self._oldest = index = last
        freed = counts[last % SLOTS]
        while freed < quota and index < latest:
            index += 1
            if count := counts[index % SLOTS]:
                last, freed = index, freed + count
        wait = (last + SLOTS) * self._width - now
        return wait / MICROSECONDS if wait > 0 else 0.0

    def is_spent(self, now: int) -> bool:
        """True when nothing counts any more at `now`: the window may be dropped."""
        return not self.total or now // self._width - self._latest > BUCKETS

    def _clear(self) -> None:
        if self.total:
            self._counts = array("I", bytes(4 * SLOTS))
            self.total = 0

    def _rewind(self, index: int) -> None:
        """The clock was set back: what was counted later counts as of now, and nothing is lost."""
        carried = 0
        for later in range(max(index + 1, self._latest - BUCKETS), self._latest + 1):
            slot = later % SLOTS
            carried += self._counts[slot]
            self._counts[slot] = 0
        self._counts[index % SLOTS] += carried
        self._oldest = min(self._oldest, index)


def microseconds(now: float) -> int:
    """Epoch seconds as the windows count them."""
    return int(now * MICROSECONDS)


def all_admit(windows: Sequence[Window], hits: Sequence[Hit], now: int) -> bool:
    """True when every quota, those in shadow too, would admit its hit; counts nothing."""
    for window, (quota, _, cost, _) in zip(windows, hits, strict=True):
        window.advance(now)
        if window.total + cost > quota.limit:
            return False
    return True


def count(windows: Sequence[Window], hits: Sequence[Hit], now: int) -> list[WindowState]:
    """What `decide` says where `all_admit` is true, at the same `now`."""
    states = []
    for window, (quota, _, cost, _) in zip(windows, hits, strict=True):
        window.add(cost)
        states.append(WindowState(True, quota.limit - window.total, window.frees_in(1, now), 0.0))
    return states


def decide(windows: Sequence[Window], hits: Sequence[Hit], now: int) -> list[WindowState]:
    """Decide all quotas of one request: all admit and count, or none counts; `windows` change.

    `windows` run parallel to `hits`, each quota once; `now` is epoch microseconds. A hit whose cost
    exceeds its limit is never admitted.
    """
    passes = True
    for window, (quota, _, cost, _) in zip(windows, hits, strict=True):
        window.advance(now)
        if window.total + cost > quota.limit and not quota.shadow:
            passes = False
    return [
        _state(window, quota, cost, now, counts=passes)
        for window, (quota, _, cost, _) in zip(windows, hits, strict=True)
    ]


def _state(window: Window, quota: Quota, cost: int, now: int, *, counts: bool) -> WindowState:
    excess = window.total + cost - quota.limit
    if excess <= 0:
        if counts:
            window.add(cost)
        return WindowState(True, quota.limit - window.total, window.frees_in(1, now), 0.0)
    wait = window.frees_in(excess, now)
    return WindowState(False, max(0, quota.limit - window.total), window.frees_in(1, now), wait)
