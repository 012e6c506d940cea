"""A slot is never without a worker for longer than it must be, and never tries for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from gateway.core.restart import MAX_DEATHS
from gateway.telemetry.worker_metric import WorkerMetrics
from gateway.worker.slot import Slot
from tests.unit.worker.doubles import FakeMember


class Place:
    """A slot, the processes started for it, and the pauses between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *makes: Callable[[], FakeMember]) -> None:
        self.started: list[FakeMember] = []
        self.pauses: list[float] = []
        self.changes = 0
        self.metrics = WorkerMetrics()
        self._makes = list(makes)
        self.slot = Slot(
            1,
            spawn=self._spawn,
            changed=self._changed,
            stop_seconds=5.0,
            metrics=self.metrics,
        )
        sleep = asyncio.sleep

        async def noted(seconds: float) -> None:
            self.pauses.append(seconds)
            await sleep(0)

        monkeypatch.setattr("gateway.worker.slot.asyncio.sleep", noted)

    def restarts(self, reason: str) -> float:
        labels = {"reason": reason}
        return (
            self.metrics.registry.get_sample_value("gateway_worker_restarts_total", labels) or 0.0
        )

    async def _spawn(self, slot: int) -> FakeMember:
        assert slot == 1
        self.started.append(self._makes.pop(0)() if self._makes else FakeMember(slot))
        return self.started[-1]

    def _changed(self) -> None:
        self.changes += 1


def broken() -> FakeMember:
    return FakeMember(1, becomes_ready=False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=0)


async def test_a_first_start_that_fails_gives_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await Place(monkeypatch, broken).slot.open() == 1


async def test_one_that_dies_is_replaced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch)
    assert await place.slot.open() is None
    keeping = asyncio.create_task(place.slot.keep())

    place.started[0].die()
    await until(lambda: len(place.started) == 2)

    assert place.slot.member is place.started[1]
    assert place.pauses == [0.0]
    assert place.restarts("died") == 1
    keeping.cancel()


async def test_one_killed_for_standing_still_is_counted_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(monkeypatch)
    await place.slot.open()
    keeping = asyncio.create_task(place.slot.keep())

    place.started[0].is_hung = True
    place.started[0].kill()
    await until(lambda: len(place.started) == 2)

    assert place.restarts("hung") == 1
    assert place.restarts("died") == 0
    keeping.cancel()


async def test_a_start_that_never_succeeds_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch, FakeMember, *[broken] * MAX_DEATHS)
    await place.slot.open()
    place.started[0].die()

    assert await place.slot.keep() is False

    assert len(place.started) == 1 + MAX_DEATHS
    assert place.pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


async def test_a_closed_slot_replaces_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch)
    await place.slot.open()
    place.slot.is_closed = True
    place.started[0].die(0)

    assert await place.slot.keep() is True
    assert len(place.started) == 1


async def test_a_renewed_one_leaves_only_once_its_successor_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(monkeypatch)
    await place.slot.open()
    (old,) = place.started

    assert await place.slot.renew() is True

    assert place.slot.member is place.started[1]
    assert old.exit_code == 0
    assert place.restarts("reload") == 1


async def test_a_successor_that_does_not_serve_leaves_the_old_one_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(monkeypatch, FakeMember, broken)
    await place.slot.open()
    (old,) = place.started

    assert await place.slot.renew() is False

    assert place.slot.member is old
    assert old.serves
    assert place.restarts("reload") == 0


async def test_a_renewal_is_no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(monkeypatch)
    await place.slot.open()
    keeping = asyncio.create_task(place.slot.keep())

    await place.slot.renew()
    await until(lambda: place.started[0].exit_code == 0)

    assert len(place.started) == 2
    assert place.restarts("died") == 0
    place.started[1].die()
    await until(lambda: len(place.started) == 3)  # and the new one is kept as the old one was
    keeping.cancel()
