"""A loop whose time skips what nobody does anything in: minutes of timers pass in a moment."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Never waits; `skipped` is how long it should have, seconds."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            self.skipped += timeout
            timeout = 0
        return super().select(timeout)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Selector()
        super().__init__(self._skipping)

    def time(self) -> float:
        return 1000.0 + self._skipping.skipped


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run it; it must wait for timers alone, not for sockets or threads."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
