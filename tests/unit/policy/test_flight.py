"""Upstream requests under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.error import UpstreamTimeout
from gateway.core.freshness import StoredResponse, Terms
from gateway.policy.flight import Flight, Flights, Landed, Outdated
from tests.support.policy import answer, stream

SHARED = StoredResponse(200, CIMultiDictProxy(CIMultiDict()), b"", Terms(0, 60))


async def fetch(flight: Flight) -> Landed:
    return Landed(answer())


class Gate:
    """Lands when it is opened; `flights` shows what began."""

    def __init__(self, landed: Landed | BaseException) -> None:
        self.opened = asyncio.Event()
        self.began: list[Flight] = []
        self._arrived = asyncio.Event()
        self._landed = landed

    async def __call__(self, flight: Flight) -> Landed:
        self.began.append(flight)
        self._arrived.set()
        await self.opened.wait()
        if isinstance(self._landed, BaseException):
            raise self._landed
        return self._landed

    async def arrived(self) -> None:
        await self._arrived.wait()


async def begun(flights: Flights, gate: Gate) -> asyncio.Task[Landed]:
    task = asyncio.create_task(flights.fly(Flight("t", "k"), gate))
    await gate.arrived()
    return task


async def test_the_first_request_of_a_key_is_the_one_to_join() -> None:
    flights = Flights()
    first = flights.start("t", "k", fetch)
    flights.start("t", "k", fetch)

    assert flights.joinable("k") is first
    assert flights.joinable("other") is None
    await flights.close()


async def test_a_request_that_landed_cannot_be_joined() -> None:
    flights = Flights()
    flights.start("t", "k", fetch)
    await flights.close()

    assert flights.joinable("k") is None


async def test_a_request_for_its_client_alone_cannot_be_joined() -> None:
    flights = Flights()
    gate = Gate(Landed(answer()))
    task = asyncio.create_task(flights.fly(Flight("t", "k"), gate, joinable=False))
    await gate.arrived()

    assert flights.joinable("k") is None
    gate.opened.set()
    await task


async def test_a_request_that_was_replaced_leaves_its_successor_joinable() -> None:
    flights = Flights()
    gate = Gate(Landed(answer()))
    first = flights.start("t", "k", fetch)
    flights.outdate("t", Outdated.STALE)
    second = flights.start("t", "k", gate)
    await first.result()

    assert flights.joinable("k") is second
    gate.opened.set()
    await flights.close()


async def test_what_is_gone_stays_gone() -> None:
    flights = Flights()
    flight = flights.start("t", "k", fetch)
    flights.outdate("t", Outdated.GONE)
    flights.outdate("t", Outdated.STALE)

    assert flight.outdated is Outdated.GONE
    await flights.close()


async def test_a_request_cancelled_with_its_loop_lands_quietly() -> None:
    flights = Flights()
    flight = flights.start("t", "k", fetch)
    flights.abandon(flight)
    assert flight.task is not None
    flight.task.cancel()
    await flights.close()

    assert flights.joinable("k") is None
    assert flight.over


@pytest.mark.parametrize("landed", [Landed(answer(), SHARED), UpstreamTimeout("x")])
async def test_whoever_waits_is_told_of_the_end(landed: Landed | BaseException) -> None:
    flights = Flights()
    gate = Gate(landed)
    leader = await begun(flights, gate)
    waiting = asyncio.create_task(gate.began[0].wait())
    await asyncio.sleep(0)  # it waits now
    gate.opened.set()

    await waiting
    await asyncio.wait({leader})
    [flight] = gate.began
    assert flight.over
    assert not flight.left
    assert flight.shared == (None if isinstance(landed, BaseException) else SHARED)


async def test_a_client_that_leaves_takes_its_request_along() -> None:
    flights = Flights()
    gate = Gate(Landed(answer(), SHARED))
    leader = await begun(flights, gate)
    [flight] = gate.began
    leader.cancel()
    await asyncio.wait({leader})

    assert (flight.over, flight.left, flights.joinable("k")) == (True, True, None)


async def test_one_may_wait_for_a_time() -> None:
    flights = Flights()
    gate = Gate(Landed(answer()))
    leader = await begun(flights, gate)
    await gate.began[0].wait(0)

    assert not gate.began[0].over
    gate.opened.set()
    await leader
    await gate.began[0].wait()


async def land(flights: Flights, landed: Landed, *, awaited: bool) -> None:
    """Let a request land, with another one waiting for it or not."""
    gate = Gate(landed)
    leader = await begun(flights, gate)
    tasks: list[asyncio.Task[Any]] = [leader]
    if awaited:
        tasks.append(asyncio.create_task(gate.began[0].wait()))
        await asyncio.sleep(0)  # it waits now
    gate.opened.set()
    await asyncio.wait(tasks)


async def test_a_key_with_nothing_to_share_is_not_waited_for_again() -> None:
    flights = Flights()
    await land(flights, Landed(answer()), awaited=True)
    flights.start("t", "k", fetch)

    assert flights.joinable("k") is None
    await flights.close()


@pytest.mark.parametrize(
    ("landed", "awaited"),
    [(Landed(answer()), False), (Landed(answer(status=503)), True), (Landed(SHARED), True)],
)
async def test_nothing_is_learnt_of_a_key_nobody_waited_for_or_that_failed(
    landed: Landed, *, awaited: bool
) -> None:
    flights = Flights()
    await land(flights, landed, awaited=awaited)
    flight = flights.start("t", "k", fetch)

    assert flights.joinable("k") is flight
    await flights.close()


async def test_a_key_that_has_something_to_share_after_all_is_waited_for() -> None:
    flights = Flights()
    await land(flights, Landed(answer()), awaited=True)
    await land(flights, Landed(answer(), SHARED), awaited=False)
    flight = flights.start("t", "k", fetch)

    assert flights.joinable("k") is flight
    await flights.close()


async def test_what_is_remembered_of_keys_is_bounded() -> None:
    flights = Flights()
    for number in range(1100):
        flight = flights.start("t", str(number), fetch)
        await flight.wait()

    assert len(flights._alone) == 1024


async def test_events_reach_a_body_that_is_still_coming_in() -> None:
    flights = Flights()

    async def collecting(flight: Flight) -> Landed:
        flight.collecting = True
        return Landed(answer())

    flight = flights.start("t", "k", collecting)
    await flights.close()
    flights.outdate("t", Outdated.GONE)
    assert flight.outdated is Outdated.GONE

    flights.release(flight)
    assert not flights._under_way


async def test_an_abandoned_stream_is_closed() -> None:
    flights = Flights()
    large = answer()
    closed: list[bool] = []
    large.body = body = stream(b"x")
    body.closers.append(lambda: closed.append(True))
    gate = Gate(Landed(large))
    flights.abandon(flights.start("t", "k", gate))
    gate.opened.set()
    await flights.close()

    assert closed == [True]


async def test_only_a_request_with_a_task_has_a_result_to_wait_for() -> None:
    with pytest.raises(RuntimeError):
        await Flight("t", "k").result()
