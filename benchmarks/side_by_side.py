"""The gateway beside its peers, doing the same work: CPU time a request, latency, memory.

Each side runs pinned to one core, the load and the origin to another. The sides take turns and the
median of the rounds counts: on a noisy machine ratios hold where absolute figures do not.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from benchmarks.load import apply
from benchmarks.origin import PLAIN_PATH, STATUS_PATH
from benchmarks.peer import KEY, PEERS, Peer, Place
from benchmarks.process import LOAD_CORE, PROXY_CORE, Measured, free_port, started


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work: what is asked for, over how many connections.

    Where it is not `is_varied`, every request is the same, as polls are.
    """

    name: str
    path: str
    connections: int
    is_varied: bool = False


_ADDED = (
    "Content-Security-Policy",
    "Cross-Origin-Resource-Policy",
    "Referrer-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-Request-ID",
)
ROWS = (
    Row("proxied", PLAIN_PATH, 32),
    Row("cached", STATUS_PATH, 32),
    Row("proxied, varied", PLAIN_PATH, 32, is_varied=True),
    Row("cached, varied", STATUS_PATH, 32, is_varied=True),
    Row("one connection", PLAIN_PATH, 1),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one side."""

    cpu_microseconds: float
    per_second: float
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True, slots=True)
class Side:
    """A running peer."""

    name: str
    url: str
    process: Measured
    folder: Path

    def check(self) -> None:
        """Raise RuntimeError unless it asks for the key, adds the headers and names the request."""
        refused, _ = self._get({})
        status, headers = self._get({"X-API-Key": KEY})
        missing = [name for name in _ADDED if name.lower() not in headers]
        if (refused, status) != (401, 200) or missing:
            said = f"{refused} without a key, {status} with it, without the headers {missing}"
            raise RuntimeError(f"{self.name} does not do the work: {said}")

    def check_log(self) -> None:
        """Raise RuntimeError unless it wrote access lines."""
        lines = b"".join(path.read_bytes()[: 1 << 20] for path in self.folder.glob("*.[lt]*"))
        if lines.count(b'"status"') < 1000:
            raise RuntimeError(f"{self.name} does not do the work: it wrote no access lines")

    def _get(self, headers: dict[str, str]) -> tuple[int, frozenset[str]]:
        """The status, and the names of the headers, lower-cased."""
        request = Request(self.url + PLAIN_PATH, headers=headers)  # noqa: S310 - loopback
        try:
            with urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
                return answer.status, frozenset(map(str.lower, answer.headers))
        except HTTPError as error:
            with error:
                return error.code, frozenset(map(str.lower, error.headers))

    def measure(self, row: Row, seconds: float) -> Sample:
        """Apply one row's load."""
        before = self.process.cpu_seconds()
        url, varied = self.url + row.path, row.is_varied
        load = apply(url, KEY, connections=row.connections, seconds=seconds, is_varied=varied)
        spent = self.process.cpu_seconds() - before
        return Sample(spent / load.answers * 1e6, load.answers / load.seconds, load.p50, load.p99)


@contextmanager
def origin(folder: Path) -> Iterator[tuple[int, Measured]]:
    """The upstream of every side: its port and process."""
    port = free_port()
    command = (sys.executable, "-m", "benchmarks.origin", str(port))
    with started(command, port, LOAD_CORE, folder / "origin.txt") as process:
        yield port, process


@contextmanager
def running(
    folder: Path, origin_port: int, peers: Sequence[Peer] = PEERS
) -> Iterator[tuple[Side, ...]]:
    """Every peer that is installed; what is missing is printed."""
    sides = []
    with ExitStack() as stack:
        for peer in peers:
            try:
                peer.version()
            except LookupError as error:
                print(f"{peer.name} is left out: {error}")
                continue
            own = folder / peer.name
            own.mkdir()
            place = Place(own, free_port(), origin_port)
            command = peer.prepare(place)
            process = stack.enter_context(
                started(command, place.port, PROXY_CORE, own / "output.txt")
            )
            sides.append(Side(peer.name, f"http://127.0.0.1:{place.port}", process, own))
        yield tuple(sides)


def compare(folder: Path, rounds: int, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """By row and side the medians, and how far the CPU figures lie apart.

    Raises RuntimeError for a side that does not do the work it is measured for.
    """
    samples: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    with origin(folder) as (port, process), running(folder, port) as sides:
        rest = {side.name: side.process.memory_bytes() for side in sides}
        direct = Side("origin", f"http://127.0.0.1:{port}", process, folder)
        for side in sides:
            side.check()
        for side in (direct, *sides):
            for row in ROWS:  # what is compiled, cached or connected at first does not count
                side.measure(row, 1)
        for _ in range(rounds):
            for row in ROWS:
                for side in (direct, *sides):
                    samples[row.name, side.name].append(side.measure(row, seconds))
        for side in sides:
            side.check_log()
        loaded = {side.name: side.process.memory_bytes() for side in sides}
    found: dict[str, dict[str, dict[str, float]]] = {row.name: {} for row in ROWS}
    for (row_name, side_name), taken in samples.items():
        found[row_name][side_name] = _summary(taken)
    found["memory"] = {
        name: {"at_rest_bytes": rest[name], "after_load_bytes": loaded[name]} for name in rest
    }
    return found


def ratios(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Ours over each peer's, of CPU time a request; and the added median latency likewise."""
    made: dict[str, float] = {}
    for row in (row.name for row in ROWS if row.connections > 1 and row.name in found):
        ours = found[row]["gateway"]["cpu_microseconds"]
        for name, other in found[row].items():
            if name not in ("gateway", "origin"):
                made[f"{row.replace(', ', '_')}_vs_{name}"] = round(
                    ours / other["cpu_microseconds"], 3
                )
    alone = found["one connection"]
    added = {
        name: each["p50_seconds"] - alone["origin"]["p50_seconds"] for name, each in alone.items()
    }
    for name, seconds in added.items():
        if name not in ("gateway", "origin") and seconds > 0:
            made[f"added_p50_vs_{name}"] = round(added["gateway"] / seconds, 3)
    return made


def _summary(samples: Sequence[Sample]) -> dict[str, float]:
    spent = [sample.cpu_microseconds for sample in samples]
    median = statistics.median(spent)
    return {
        "cpu_microseconds": round(median, 2),
        "cpu_spread_percent": round((max(spent) - min(spent)) / median * 100, 1),
        "per_second": round(statistics.median(sample.per_second for sample in samples)),
        "p50_seconds": statistics.median(sample.p50_seconds for sample in samples),
        "p99_seconds": statistics.median(sample.p99_seconds for sample in samples),
    }
