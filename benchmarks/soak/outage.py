"""What is away by intention, and which errors clients may see of it.

What is allowed is an error of any request (`503`) or of those of one name (`timeline: 404`). An
error belongs to an outage when its request was under way at any moment from the outage's start
to `AFTERMATH_SECONDS` after its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CUT = "stream cut"
# Ways back that take their time: a breaker that looks again, a Redis that is dialled again.
AFTERMATH_SECONDS = 5.0
UPSTREAM = frozenset({"502", "503", "504", CUT})
# A job that was created meanwhile is recorded once Redis is back: until then it has no timeline.
REDIS = frozenset({"503", "timeline: 404"})


@dataclass(slots=True)
class _Outage:
    allowed: frozenset[str]
    began: float
    ended: float | None = None

    def explains(self, name: str, error: str, since: float) -> bool:
        is_over = self.ended is not None and self.ended + AFTERMATH_SECONDS < since
        return not self.allowed.isdisjoint({error, f"{name}: {error}"}) and not is_over


class Outages:
    """Every outage of the run so far."""

    def __init__(self) -> None:
        self._outages: list[_Outage] = []

    @contextmanager
    def during(self, allowed: frozenset[str]) -> Iterator[None]:
        """Something is away until the block ends."""
        outage = _Outage(allowed, time.monotonic())
        self._outages.append(outage)
        try:
            yield
        finally:
            outage.ended = time.monotonic()

    def explain(self, name: str, error: str, since: float) -> bool:
        """True when an outage explains this error, seen now, of a request made at `since`."""
        return any(outage.explains(name, error, since) for outage in self._outages)
