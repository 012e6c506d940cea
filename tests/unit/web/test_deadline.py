"""A time by which something must have happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from gateway.web.deadline import Deadline


class Loop:
    """Time that passes when told, and the timers it has."""

    def __init__(self) -> None:
        self.at = 100.0
        self.timers: list[asyncio.TimerHandle] = []
        self.made = 0

    def time(self) -> float:
        return self.at

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.made += 1
        self.timers.append(
            asyncio.TimerHandle(when, callback, (), cast("asyncio.AbstractEventLoop", self))
        )
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        self.at += seconds
        while due := [t for t in self.timers if t.when() <= self.at and not t.cancelled()]:
            self.timers.remove(due[0])
            due[0]._run()


def make() -> tuple[Loop, Deadline, list[float]]:
    loop, expired = Loop(), list[float]()
    timers = cast("asyncio.AbstractEventLoop", loop)
    return loop, Deadline(timers, lambda: expired.append(loop.at)), expired


def test_it_expires_once_its_time_is_over() -> None:
    loop, deadline, expired = make()
    deadline.set(5)
    loop.advance(4.9)
    assert expired == []
    loop.advance(0.1)
    loop.advance(60)
    assert expired == [105.0]


def test_to_move_it_on_costs_no_timer() -> None:
    loop, deadline, expired = make()
    for _ in range(100):
        deadline.set(5)
        loop.advance(0.01)
    assert loop.made == 1
    loop.advance(4.5)
    assert expired == []
    loop.advance(0.5)
    assert len(expired) == 1


def test_an_earlier_time_counts() -> None:
    loop, deadline, expired = make()
    deadline.set(75)
    deadline.set(1)
    loop.advance(1)
    assert expired == [101.0]


def test_suspended_it_waits_until_it_is_set_again() -> None:
    loop, deadline, expired = make()
    deadline.set(1)
    deadline.suspend()
    loop.advance(10)
    assert expired == []
    deadline.set(1)
    loop.advance(1)
    assert expired == [111.0]


def test_closed_it_leaves_no_timer() -> None:
    loop, deadline, expired = make()
    deadline.set(1)
    deadline.close()
    loop.advance(10)
    assert expired == []
    assert loop.made == 1
