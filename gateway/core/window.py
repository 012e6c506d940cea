"""The arithmetic of sliding-window rate limits: one function, whatever stores the state.

A window is cut into 100 buckets, and a hit counts as long as any part of its bucket may lie within
the window. So no span of `window_seconds` ever holds more than the limit, a hit is forgotten at
most 1 % of the window late, and a key costs the same memory however high its limit is. Time is
whole microseconds here: sums of floats would let a hit slip out at the window's edge, and Lua's
numbers hold these exactly.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

BUCKETS = 100
_SLOTS = BUCKETS + 1  # the window may begin within a bucket, which then counts whole
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Hit:
    """One limit that a request counts against.

    `policy` is the limit's name, `key` who it counts for (`ip:203.0.113.7`), `limit` how many in
    any `window_seconds`, `cost` how much this request counts. A `shadow` limit is decided and
    counted, but what it refuses is admitted by the others all the same.
    """

    policy: str
    key: str
    limit: int
    window_seconds: float
    cost: int = 1
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class WindowState:
    """What a limit says to a request.

    `remaining` counts after it; `reset_seconds` is when some quota comes back,
    `retry_after_seconds` when this request would be admitted (0 if it is).
    """

    policy: str
    admitted: bool
    limit: int
    window_seconds: float
    remaining: int
    reset_seconds: float
    retry_after_seconds: float


class Window:
    """What one limit has admitted for one key: a ring of counts, a bucket a slot.

    Bucket `i` holds the hits of `[i, i + 1)` bucket widths since the epoch, in slot `i` modulo 101.
    """

    __slots__ = ("_counts", "_latest", "_oldest", "_total", "_width")

    def __init__(self, window_seconds: float) -> None:
        # Rounded up: a bucket too wide forgets late, one too narrow would forget early.
        self._width = max(1, -(-round(window_seconds * _MICROSECONDS) // BUCKETS))
        # 32 bits a count: a bucket holds at most the limit, in 1 % of its window.
        self._counts = array("I", bytes(4 * _SLOTS))
        self._latest = 0
        self._oldest = 0
        self._total = 0

    @property
    def total(self) -> int:
        """How many hits count, as of the last `advance`."""
        return self._total

    def advance(self, now: float) -> None:
        """Forget what no longer counts at `now` (epoch seconds)."""
        index = self._bucket(now)
        passed = index - self._latest
        if passed < 0:
            self._rewind(index)
        elif passed > BUCKETS or not self._total:
            self._clear()
        else:
            for slot in (each % _SLOTS for each in range(self._latest + 1, index + 1)):
                self._total -= self._counts[slot]
                self._counts[slot] = 0
        self._latest = index

    def add(self, cost: int) -> None:
        """Count a hit at the time of the last `advance`."""
        if not self._total:
            self._oldest = self._latest
        self._counts[self._latest % _SLOTS] += cost
        self._total += cost

    def frees_in(self, quota: int, now: float) -> float:
        """Seconds from `now` until `quota` hits no longer count; until all are gone if more."""
        if not self._total:
            return 0.0
        self._oldest = max(self._oldest, self._latest - BUCKETS)
        while not self._counts[self._oldest % _SLOTS]:
            self._oldest += 1
        last, freed = self._oldest, 0
        for index in range(self._oldest, self._latest + 1):
            if count := self._counts[index % _SLOTS]:
                last, freed = index, freed + count
                if freed >= quota:
                    break
        return max(0.0, (last + _SLOTS) * self._width / _MICROSECONDS - now)

    def is_spent(self, now: float) -> bool:
        """True when nothing counts any more at `now`: the window may be dropped."""
        return not self._total or self._bucket(now) - self._latest > BUCKETS

    def _bucket(self, now: float) -> int:
        return int(now * _MICROSECONDS) // self._width

    def _clear(self) -> None:
        if self._total:
            self._counts = array("I", bytes(4 * _SLOTS))
            self._total = 0

    def _rewind(self, index: int) -> None:
        """The clock was set back: what was counted later counts as of now, and nothing is lost."""
        carried = 0
        for later in range(max(index + 1, self._latest - BUCKETS), self._latest + 1):
            slot = later % _SLOTS
            carried += self._counts[slot]
            self._counts[slot] = 0
        self._counts[index % _SLOTS] += carried
        self._oldest = min(self._oldest, index)


def decide(windows: Sequence[Window], hits: Sequence[Hit], now: float) -> tuple[WindowState, ...]:
    """Decide all limits of one request: all admit and count, or none counts; `windows` change.

    `windows` run parallel to `hits`, each limit once. A hit whose cost exceeds its limit is never
    admitted.
    """
    admitted = []
    for window, hit in zip(windows, hits, strict=True):
        window.advance(now)
        admitted.append(window.total + hit.cost <= hit.limit)
    passes = all(ok or hit.shadow for ok, hit in zip(admitted, hits, strict=True))
    states = []
    for window, hit, ok in zip(windows, hits, admitted, strict=True):
        if ok and passes:
            window.add(hit.cost)
        excess = window.total + hit.cost - hit.limit
        states.append(
            WindowState(
                policy=hit.policy,
                admitted=ok,
                limit=hit.limit,
                window_seconds=hit.window_seconds,
                remaining=max(0, hit.limit - window.total),
                reset_seconds=window.frees_in(1, now),
                retry_after_seconds=0.0 if ok else window.frees_in(excess, now),
            )
        )
    return tuple(states)
