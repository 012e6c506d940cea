from __future__ import annotations

import asyncio

from gateway.delivery.pacer import Pacer


class _Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))


async def test_turns_of_one_destination_are_a_period_apart() -> None:
    time = _Time()
    pacer = Pacer(time.clock, time.sleep)
    await asyncio.gather(*(pacer.turn("wh_a", 4.0) for _ in range(4)))
    assert time.slept == [0.25, 0.5, 0.75]


async def test_a_destination_does_not_wait_for_another() -> None:
    time = _Time()
    pacer = Pacer(time.clock, time.sleep)
    await pacer.turn("wh_a", 1.0)
    await pacer.turn("wh_b", 1.0)
    assert time.slept == []


async def test_time_that_has_passed_counts() -> None:
    time = _Time()
    pacer = Pacer(time.clock, time.sleep)
    await pacer.turn("wh_a", 2.0)
    time.now += 0.4
    await pacer.turn("wh_a", 2.0)
    assert time.slept == [0.1]


async def test_without_a_rate_nobody_waits() -> None:
    time = _Time()
    pacer = Pacer(time.clock, time.sleep)
    for _ in range(10):
        await pacer.turn("wh_a", None)
    assert time.slept == []


async def test_destinations_long_idle_are_forgotten() -> None:
    time = _Time()
    pacer = Pacer(time.clock, time.sleep)
    for number in range(5000):
        await pacer.turn(f"wh_{number}", 1000.0)
        time.now += 0.01
    assert len(pacer._free_at) <= 1100
