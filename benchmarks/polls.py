"""Many clients that poll the jobs the gateway watches: what the upstream is asked, at what cost.

Once as clients poll, each every `PERIOD_SECONDS`; once as they wait (`Prefer: wait`), each until
its job has changed. The spread is from the first client that has an answer to each that has it too.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import uvloop
import yaml

from benchmarks import peer
from benchmarks.many_jobs_origin import job_id
from benchmarks.process import LOAD_CORE, free_port, started
from benchmarks.side_by_side import Side, running

PERIOD_SECONDS = 5.0
_STEPS = 4  # changes of every job while clients wait
_STEP_SECONDS = 5.0
_ROUND_SECONDS = 60.0  # in which a change must have reached everybody
_AT_ONCE = 100  # clients that connect at a time


def run(folder: Path, clients: int, jobs: int, seconds: float) -> dict[str, dict[str, float]]:
    """Figures of both kinds of clients, by kind."""
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.many_jobs_origin", str(port), str(jobs))
    found = {}
    roomy = peer.Peer("gateway", _roomy, peer.GATEWAY.version)
    for kind, measure in (("polling", _polling), ("waiting", _waiting)):
        place = folder / kind
        place.mkdir()
        with (
            started(command, port, LOAD_CORE, place / "origin.txt"),
            _load_core(),
            running(place, port, [roomy]) as (side,),
        ):
            fleet = Fleet(side, port, clients, jobs)
            found[kind] = uvloop.run(measure(fleet, seconds))
    return found


def show(found: Mapping[str, Mapping[str, float]]) -> None:
    """A line a figure."""
    names = list(next(iter(found.values())))
    print(f"\n{'':24}" + "".join(f"{kind:>14}" for kind in found))
    for name in names:
        print(f"{name:24}" + "".join(f"{each[name]:14.6g}" for each in found.values()))


class Poller(asyncio.Protocol):
    """One client of one job; it asks again when its fleet says so."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet = fleet
        self.job = job_id(number % fleet.jobs)
        self.etag = ""
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._fleet.is_over:
            self._fleet.failed(f"a client's connection ended: {exc}")

    def ask(self, *, waits: bool) -> None:
        """Ask for the job's status, or for one that differs from the last."""
        more = f"Prefer: wait=30\r\nIf-None-Match: {self.etag}\r\n" if waits and self.etag else ""
        head = (
            f"GET /api/v1/analysis/{self.job}/status HTTP/1.1\r\nHost: bench\r\n"
            f"X-API-Key: {peer.KEY}\r\nAccept: */*\r\n{more}\r\n"
        )
        self.transport.write(head.encode())  # type: ignore[attr-defined] # a stream's

    def data_received(self, data: bytes) -> None:
        self._rest += data
        head, end, body = self._rest.partition(b"\r\n\r\n")
        if not end:
            return
        fields = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        status = int(head[9:12])
        if status == 200 and len(body) < int(fields[b"content-length"]):
            return
        self._rest = b""
        if status not in (200, 304):
            self._fleet.failed(f"answered {status}: {body[:200]!r}")
            return
        self.etag = fields[b"etag"].decode()
        self._fleet.answered(self, status)


class Fleet:
    """All clients, and what they were told."""

    def __init__(self, side: Side, origin: int, clients: int, jobs: int) -> None:
        self.side = side
        self.jobs = jobs
        self.clients = clients
        self.is_over = False
        self.waits = False
        self.answers = 0
        self.pollers: list[Poller] = []
        self._origin = origin
        self._failure: str | None = None
        self._first: dict[tuple[str, str], float] = {}
        self.spreads: list[float] = []
        self._told = 0

    async def connect(self) -> None:
        """All of them, each having its job's status."""
        host, _, port = self.side.url.removeprefix("http://").partition(":")
        loop = asyncio.get_running_loop()
        while len(self.pollers) < self.clients:
            begun = range(len(self.pollers), min(self.clients, len(self.pollers) + _AT_ONCE))
            made = await asyncio.gather(
                *(
                    loop.create_connection(lambda n=n: Poller(self, n), host, int(port))  # type: ignore[misc] # mypy cannot infer it
                    for n in begun
                )
            )
            self.pollers += [poller for _, poller in made]

    async def told(self, count: int) -> None:
        """Until so many answers with a new status have come in."""
        async with asyncio.timeout(_ROUND_SECONDS):
            while self._told < count:
                self.check()
                await asyncio.sleep(0.01)

    def answered(self, poller: Poller, status: int) -> None:
        """One more answer."""
        self.answers += 1
        if status == 200:
            self._told += 1
            now = time.perf_counter()
            self.spreads.append(now - self._first.setdefault((poller.job, poller.etag), now))
        if self.waits:
            poller.ask(waits=True)

    def failed(self, why: str) -> None:
        """Remember the first failure."""
        self._failure = self._failure or why

    def check(self) -> None:
        """Raise RuntimeError for an answer that was none."""
        if self._failure is not None:
            raise RuntimeError(self._failure)

    def begin(self) -> None:
        """Count from now on."""
        self.answers = self._told = 0
        self.spreads.clear()
        self._first.clear()

    async def ask_origin(self, path: str) -> dict[str, float]:
        def ask() -> dict[str, float]:
            with urlopen(f"http://127.0.0.1:{self._origin}{path}", timeout=10) as answer:
                found: dict[str, float] = json.load(answer)
                return found

        return await asyncio.to_thread(ask)

    def close(self) -> None:
        """Hang up."""
        self.is_over = True
        for poller in self.pollers:
            poller.transport.close()


async def _polling(fleet: Fleet, seconds: float) -> dict[str, float]:
    """Each client asks every `PERIOD_SECONDS`, whatever the last answer was."""
    loop = asyncio.get_running_loop()

    def go_on(poller: Poller) -> None:
        if not fleet.is_over:
            poller.ask(waits=False)
            loop.call_later(PERIOD_SECONDS, go_on, poller)

    await fleet.connect()
    for poller in fleet.pollers:
        loop.call_later(random.random() * PERIOD_SECONDS, go_on, poller)
    await asyncio.sleep(PERIOD_SECONDS)
    return await _figures(fleet, _steps(fleet, max(1, int(seconds / _STEP_SECONDS)), ()))


async def _waiting(fleet: Fleet, seconds: float) -> dict[str, float]:  # noqa: ARG001 - by steps
    """Each client waits for its job's next change."""
    memory = fleet.side.process.memory_bytes()
    await fleet.connect()
    for poller in fleet.pollers:
        poller.ask(waits=False)
    await fleet.told(fleet.clients)
    fleet.waits = True
    for poller in fleet.pollers:
        poller.ask(waits=True)
    await asyncio.sleep(1)
    grown = fleet.side.process.memory_bytes() - memory
    rounds = [fleet.clients * (number + 1) for number in range(_STEPS)]
    found = await _figures(fleet, _steps(fleet, _STEPS, rounds))
    return {**found, "bytes_a_client": round(grown / fleet.clients)}


async def _steps(fleet: Fleet, count: int, rounds: Sequence[int]) -> None:
    """Move all jobs, `count` times; everybody who waits hears of each."""
    for number in range(count):
        await fleet.ask_origin("/__step")
        await asyncio.sleep(_STEP_SECONDS)
        if rounds:
            await fleet.told(rounds[number])


async def _figures(fleet: Fleet, work: object) -> dict[str, float]:
    fleet.begin()
    asked = await fleet.ask_origin("/__asked")
    cpu, began = fleet.side.process.cpu_seconds(), time.perf_counter()
    await work  # type: ignore[misc] # a coroutine
    took = time.perf_counter() - began
    cpu = fleet.side.process.cpu_seconds() - cpu
    after = await fleet.ask_origin("/__asked")
    fleet.check()
    answers, spreads = fleet.answers, sorted(fleet.spreads) or [0.0]
    fleet.close()
    return {
        "clients": fleet.clients,
        "jobs": fleet.jobs,
        "seconds": round(took, 3),
        "answers": answers,
        "asked_by_gateway": after["by_gateway"] - asked["by_gateway"],
        "asked_for_clients": after["for_clients"] - asked["for_clients"],
        "cpu_seconds": round(cpu, 3),
        "cpu_microseconds": round(1e6 * cpu / answers, 1),
        "spread_p50_seconds": round(statistics.median(spreads), 6),
        "spread_p99_seconds": round(spreads[int(len(spreads) * 0.99)], 6),
        "bytes_a_client": 0.0,
    }


def _roomy(place: peer.Place) -> Sequence[str]:
    """The gateway as its peers meet it, with room for all clients of one key."""
    command = peer.GATEWAY.prepare(place)
    path = place.folder / "policies" / "cache.yaml"
    policy = yaml.safe_load(path.read_text())
    policy["watched"]["max_waiters_per_key"] = policy["watched"]["max_waiters"]
    path.write_text(yaml.safe_dump(policy))
    return command


@contextmanager
def _load_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
