"""What a worker says of the whole: what it was told, and while nobody tells, that this is so."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.app import seat as seat_module
from gateway.app.seat import Seat
from gateway.core.error import ServiceUnavailable
from gateway.web.health import Status
from gateway.web.server import PublicServer
from gateway.worker.assignment import SLOTS
from gateway.worker.overview import PULSE
from gateway.worker.place import Place


class Listening:
    """One listening of a server."""

    def __init__(self, server: Server, socket_: socket.socket) -> None:
        self._server = server
        self._socket = socket_

    def close(self) -> None:
        self._server.accepts.remove(self._socket)


class Server:
    """The part of a public server that a seat has to do with."""

    is_draining = False

    def __init__(self) -> None:
        self.accepts: list[socket.socket] = []

    async def start(self, inherited: Any) -> int:
        return 8080

    async def listen_on(self, sockets: list[socket.socket]) -> list[Listening]:
        self.accepts += sockets
        return [Listening(self, each) for each in sockets]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    sockets = [socket.socket() for _ in range(3)]
    return Place(1, 3, -1, tmp_path / "1-1.sock", tuple((each.detach(),) for each in sockets))


@pytest.fixture
async def seat(place: Place) -> AsyncIterator[Seat]:
    async with AsyncExitStack() as stack:
        made = Seat(place)
        await made.open(cast("PublicServer", Server()), stack)
        yield made
    for slot in made._public:
        for each in slot:
            each.close()


@pytest.fixture
async def parent(seat: Seat) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application()
    app.add_routes(seat.routes(lambda: {"status": "healthy", "components": {}}))
    async with TestClient(TestServer(app)) as client:
        yield client


Parent = TestClient[web.Request, web.Application]


async def test_before_the_first_word_it_says_how_it_is_itself(seat: Seat) -> None:
    assert seat.status(Status.HEALTHY) is Status.HEALTHY


async def test_what_it_was_told_is_what_it_says(seat: Seat, parent: Parent) -> None:
    response = await parent.post(PULSE, json={"status": "unhealthy"})

    assert await response.json() == {"status": "healthy", "components": {}}
    assert seat.status(Status.HEALTHY) is Status.UNHEALTHY


async def test_of_a_parent_that_fell_silent_the_last_word_is_worth_nothing(
    seat: Seat, parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await parent.post(PULSE, json={"status": "healthy"})
    monkeypatch.setattr(seat_module, "_HEARSAY_SECONDS", -1.0)

    assert seat.status(Status.HEALTHY) is Status.DEGRADED
    assert seat.status(Status.UNHEALTHY) is Status.UNHEALTHY


async def test_it_accepts_for_others_from_when_it_is_told_until_it_is_told_otherwise(
    seat: Seat, parent: Parent
) -> None:
    server = cast("Server", seat._server)
    (first,), _, (third,) = seat._public

    await parent.put(SLOTS, json=[0, 1, 2])
    all_of_them = set(server.accepts)
    await parent.put(SLOTS, json=[1, 2])

    assert all_of_them == {first, third}  # its own it has already
    assert server.accepts == [third]


async def test_one_that_drains_takes_nobody_on(seat: Seat, parent: Parent) -> None:
    server = cast("Server", seat._server)
    server.is_draining = True

    await parent.put(SLOTS, json=[0, 1])

    assert server.accepts == []


async def test_without_its_parent_it_has_no_metrics_of_the_whole(seat: Seat) -> None:
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        await asyncio.wait_for(seat.exposition(""), 10)
