"""What the cache does again for a request that came before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gateway.core.freshness import StoredResponse
from gateway.core.header import append_member
from gateway.core.message import Response
from gateway.policy.cache_answer import AGE, CACHE_STATUS, hit_status
from gateway.policy.cache_rule import CACHE_FIELDS
from gateway.policy.step import Answer, Step
from gateway.store.response import Held


class PassAgain(Step):
    """The upstream is asked, and what it says is not kept."""

    reads = CACHE_FIELDS
    __slots__ = ("_count", "_status")

    def __init__(self, why: str, count: Callable[[], None]) -> None:
        self._status = f"gateway; fwd={why}"
        self._count = count

    def enter(self, at: float) -> None:  # noqa: ARG002 - it is counted whenever it was
        """Count it."""
        self._count()

    async def leave(self, answer: Answer) -> Answer:
        """Say so."""
        if isinstance(answer, Response):
            append_member(answer.headers, CACHE_STATUS, self._status)
        else:
            answer.headers[CACHE_STATUS] = self._status
        return answer


class MissAgain(PassAgain):
    """Asked for what could not be kept the last time; once it can be, the chain keeps the next."""

    __slots__ = ("_asked_at", "_is_over", "_may_be_kept", "_peek")

    def __init__(
        self,
        count: Callable[[], None],
        peek: Callable[[], Sequence[StoredResponse] | None],
        may_be_kept: Callable[[Response, float], bool],
    ) -> None:
        super().__init__("uri-miss", count)
        self._peek = peek
        self._may_be_kept = may_be_kept
        self._is_over = False
        self._asked_at = 0.0

    def is_ready(self, at: float) -> bool:  # noqa: ARG002 - what is not stored has no age
        """True while there is still nothing."""
        return not self._is_over and self._peek() == ()

    def enter(self, at: float) -> None:
        """Note when it was asked."""
        self._asked_at = at
        super().enter(at)

    async def leave(self, answer: Answer) -> Answer:
        """Look whether this one could be kept."""
        if isinstance(answer, Response):
            self._is_over = self._may_be_kept(answer, self._asked_at)
        return await super().leave(answer)


class HitAgain(Step):
    """Serves what is stored for as long as nothing else is."""

    __slots__ = (
        "_age",
        "_count",
        "_entry",
        "_fresh_until",
        "_held",
        "_since",
        "_status",
        "_until",
        "_variants",
        "reads",
        "varying",
    )
    answers = True

    def __init__(self, held: Held, entry: StoredResponse, count: Callable[[], None]) -> None:
        self._held = held
        self._variants = held.variants
        self._entry = entry
        self._fresh_until = -math.inf if entry.terms.validate else entry.terms.fresh_until
        self._count = count
        varied = (name for each in held.variants for name, _ in each.vary)
        self.reads = CACHE_FIELDS.union(varied)
        self._since = self._until = 0.0
        self._age = self._status = ""
        self.varying = {AGE: lambda: self._age, CACHE_STATUS: lambda: self._status}

    def is_ready(self, at: float) -> bool:
        """True while the same is stored, and fresh."""
        return at < self._fresh_until and self._held.variants is self._variants

    def enter(self, at: float) -> None:
        """Count it, here and in the store."""
        self._held.found()
        self._count()
        if not self._since <= at < self._until:
            self._tell(at)

    def _tell(self, at: float) -> None:
        """Make what is told anew: both are whole seconds, and stay for part of one."""
        entry = self._entry
        age = entry.age_seconds(at)
        self._age, self._status = str(age), hit_status(entry, at)
        left = (entry.terms.fresh_until - at) % 1.0
        self._since = at
        self._until = at + min(left, max(0.0, entry.terms.born_at + age + 1 - at))
