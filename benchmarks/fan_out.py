"""One job's stream read by many clients: connections upstream, memory, and the way of an event.

An event's latency is from its making upstream to the client that has it, through the side under
measurement. The peers pass each client's stream through.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.request import urlopen

import uvloop

from benchmarks.job_origin import STREAM_PATH
from benchmarks.peer import KEY, PEERS
from benchmarks.process import LOAD_CORE, free_port, started
from benchmarks.side_by_side import Side, running
from benchmarks.stream import allow_descriptors

_MARK = b'"at": '
_WARM = 20  # streams open before memory is looked at: they bring what all share
_OPEN_SECONDS = 60.0
_AT_ONCE = 50  # clients that connect at a time


def run(folder: Path, clients: int, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """By side: upstream connections, bytes a stream, and an event's latency in seconds.

    Each is the median of so many interleaved rounds.
    """
    allow_descriptors(clients)
    peers = [peer for peer in PEERS if peer.name != "naive"]  # it reads an answer whole
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.job_origin", str(port))
    samples: dict[str, list[dict[str, float]]] = {}
    before = os.sched_getaffinity(0)
    with started(command, port, LOAD_CORE, folder / "origin.txt"):
        try:
            os.sched_setaffinity(0, {LOAD_CORE})
            for number, peer in itertools.product(range(rounds), peers):
                own = folder / f"round-{number}-{peer.name}"
                own.mkdir()
                # One at a time: the streams that are open upstream are its own.
                with running(own, port, [peer]) as sides:
                    for side in sides:
                        sample = uvloop.run(_measure(side, port, clients, seconds))
                        samples.setdefault(side.name, []).append(sample)
        finally:
            os.sched_setaffinity(0, before)
    return {
        name: {each: statistics.median(sample[each] for sample in of_one) for each in of_one[0]}
        for name, of_one in samples.items()
    }


def show(found: Mapping[str, Mapping[str, float]], clients: int) -> None:
    """A line a side."""
    columns = f"{'upstream':>9} {'KiB each':>9} {'p50 ms':>8} {'p99 ms':>8}"
    print(f"\n{f'{clients} clients of one job':26} {columns}")
    for name, each in found.items():
        print(
            f"{name:26} {each['upstream_connections']:9.0f} {each['bytes_a_stream'] / 1024:9.1f} "
            f"{each['p50_seconds'] * 1e3:8.1f} {each['p99_seconds'] * 1e3:8.1f}"
        )


class _Listener(asyncio.Protocol):
    """A client that notes when it got each event."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.latencies: list[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._head)  # type: ignore[attr-defined] # a stream's
        self._rest = b""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.began.done():
            self.began.set_exception(ConnectionError(f"the stream ended: {exc}"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            _, mark, after = line.partition(_MARK)
            if mark:
                if not self.began.done():
                    self.began.set_result(None)
                if self.latencies is not None:
                    self.latencies.append((now - int(after.partition(b"}")[0])) / 1e9)


async def _measure(side: Side, origin: int, clients: int, seconds: float) -> dict[str, float]:
    if side.name == "gateway":
        await _followed(origin)
    listeners = await _open(side, _WARM)
    before = side.process.memory_bytes()
    for _ in range(0, clients - _WARM, _AT_ONCE):
        listeners += await _open(side, min(_AT_ONCE, clients - len(listeners)))
    grown = side.process.memory_bytes() - before
    upstream = await _streams(origin)
    latencies: list[float] = []
    for listener in listeners:
        listener.latencies = latencies
    await asyncio.sleep(seconds)
    for listener in listeners:
        listener.transport.close()
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "clients": clients,
        "upstream_connections": upstream,
        "bytes_a_stream": round(grown / (clients - _WARM)),
        "events": len(latencies),
        "p50_seconds": cuts[49],
        "p99_seconds": cuts[98],
    }


async def _open(side: Side, count: int) -> list[_Listener]:
    """Streams whose first event has come."""
    host, _, port = side.url.removeprefix("http://").partition(":")
    head = f"GET {STREAM_PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nX-API-Key: {KEY}\r\n\r\n"
    loop = asyncio.get_running_loop()
    made = await asyncio.gather(
        *(
            loop.create_connection(lambda: _Listener(head.encode()), host, int(port))
            for _ in range(count)
        )
    )
    listeners = [listener for _, listener in made]
    async with asyncio.timeout(_OPEN_SECONDS):
        await asyncio.gather(*(listener.began for listener in listeners))
    return listeners


async def _followed(origin: int) -> None:
    """Until the gateway has found the job, and follows it."""
    async with asyncio.timeout(_OPEN_SECONDS):
        while await _streams(origin) == 0:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.1)


async def _streams(origin: int) -> int:
    def ask() -> int:
        with urlopen(f"http://127.0.0.1:{origin}/__streams", timeout=10) as answer:
            return int(json.load(answer)["streams"])

    return await asyncio.to_thread(ask)
