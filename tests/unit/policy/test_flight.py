"""Upstream requests under way."""

from __future__ import annotations

import asyncio

from gateway.policy.flight import Flight, Flights, Landed, Outdated
from tests.support.policy import answer


async def fetch(flight: Flight) -> Landed:
    return Landed(answer())


async def test_the_first_request_of_a_key_is_the_one_to_join() -> None:
    flights = Flights()
    first = flights.start("k", (), fetch)
    flights.start("k", (), fetch)

    assert flights.joinable("k") is first
    assert flights.joinable("other") is None


async def test_a_request_that_landed_cannot_be_joined() -> None:
    flights = Flights()
    flights.start("k", (), fetch)
    await flights.close()

    assert flights.joinable("k") is None


async def test_a_request_that_was_replaced_leaves_its_successor_joinable() -> None:
    flights = Flights()
    gate = asyncio.Event()

    async def wait(flight: Flight) -> Landed:
        await gate.wait()
        return Landed(answer())

    first = flights.start("k", ("job:1",), fetch)
    flights.outdate("job:1", Outdated.STALE)
    second = flights.start("k", ("job:1",), wait)
    await first.task

    assert flights.joinable("k") is second
    gate.set()
    await flights.close()


async def test_what_is_gone_stays_gone() -> None:
    flights = Flights()
    flight = flights.start("k", ("job:1",), fetch)
    flights.outdate("job:1", Outdated.GONE)
    flights.outdate("job:1", Outdated.STALE)

    assert flight.outdated is Outdated.GONE
    await flights.close()


async def test_a_request_cancelled_with_its_loop_lands_quietly() -> None:
    flights = Flights()
    flight = flights.start("k", (), fetch)
    flights.abandon(flight)
    flight.task.cancel()
    await flights.close()

    assert flights.joinable("k") is None
