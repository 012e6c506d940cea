"""What is away by intention, and which errors clients may see of it.

An error belongs to an outage when its request was under way at any moment from the outage's start
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
REDIS = frozenset({"503"})


@dataclass(slots=True)
class _Outage:
    allowed: frozenset[str]
    began: float
    ended: float | None = None

    def explains(self, error: str, since: float) -> bool:
        is_over = self.ended is not None and self.ended + AFTERMATH_SECONDS < since
        return error in self.allowed and not is_over


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

    def explain(self, error: str, since: float) -> bool:
        """True when an outage explains this error, seen now, of a request made at `since`."""
        return any(outage.explains(error, since) for outage in self._outages)
