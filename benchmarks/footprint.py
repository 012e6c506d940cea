"""What a start and a running process take, beside peers: time to ready, memory, descriptors, size.

The sides start one after the other, each on one core. "Ready" is the first answer to a request that
passes every policy, not an open port; the CPU time until then is what a busy machine does not blur.
"""

from __future__ import annotations

import http.client
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.load import apply
from benchmarks.origin import PLAIN_PATH
from benchmarks.peer import KEY, PEERS, Peer, Place
from benchmarks.process import PROXY_CORE, Measured, free_port, launched
from benchmarks.side_by_side import origin
from tests.support import image

CONNECTIONS = 64
_LOOK_SECONDS = 0.002
_SAMPLE_SECONDS = 0.2
_PATIENCE_SECONDS = 60.0
_IMPORT = """
import sys, time
before, began = len(sys.modules), time.perf_counter()
import gateway.app.gateway
print(time.perf_counter() - began, len(sys.modules) - before)
"""


def run(folder: Path, *, starts: int, seconds: float) -> dict[str, dict[str, float]]:
    """By side: medians of so many starts, and of one of them its memory and descriptors."""
    found: dict[str, dict[str, float]] = {}
    with origin(folder) as (port, _):
        for peer in PEERS:
            try:
                peer.version()
            except LookupError as error:
                print(f"{peer.name} is left out: {error}")
                continue
            found[peer.name] = _side(peer, folder, port, starts, seconds)
    return found


def imports(rounds: int) -> dict[str, float]:
    """What importing the whole gateway takes, in seconds, and how many modules that is."""
    said = [
        subprocess.run(
            [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(rounds)
    ]
    return {
        "seconds": round(statistics.median(float(line[0]) for line in said), 4),
        "modules": float(said[0][1]),
    }


def image_size(folder: Path) -> dict[str, float]:
    """The image's own bytes and those of its base; empty where none can be built, and says why."""
    if (reason := image.missing()) is not None:
        print(f"the image is left out: {reason}")
        return {}
    built = image.build(folder)
    return {
        "own_bytes": float(built.total_bytes - built.base_bytes),
        "base_bytes": float(built.base_bytes),
    }


def show(found: Mapping[str, Mapping[str, float]]) -> None:
    """One line a side."""
    names = ("ready ms", "CPU ms", "MiB at rest", "MiB loaded", "fds", "fds loaded", "threads")
    print(f"\n{'footprint':12} " + " ".join(f"{name:>12}" for name in names))
    for name, each in found.items():
        figures = (
            each["ready_seconds"] * 1e3,
            each["ready_cpu_seconds"] * 1e3,
            each["rest_bytes"] / 2**20,
            each["loaded_bytes"] / 2**20,
            each["descriptors"],
            each["loaded_descriptors"],
            each["threads"],
        )
        print(f"{name:12} " + " ".join(f"{figure:12.0f}" for figure in figures))


def _side(
    peer: Peer, folder: Path, origin_port: int, starts: int, seconds: float
) -> dict[str, float]:
    ready: list[float] = []
    spent: list[float] = []
    figures: dict[str, float] = {}
    for number in range(starts):
        own = folder / f"{peer.name}-{number}"
        own.mkdir()
        place = Place(own, free_port(), origin_port)
        command = peer.prepare(place)
        began = time.perf_counter()
        with launched(command, PROXY_CORE, own / "output.txt") as process:
            _first_answer(place.port)
            ready.append(time.perf_counter() - began)
            spent.append(process.cpu_seconds())
            if number == starts - 1:
                figures = _occupied(process, place.port, seconds)
    return {
        "ready_seconds": round(statistics.median(ready), 4),
        "ready_cpu_seconds": round(statistics.median(spent), 4),
        **figures,
    }


def _first_answer(port: int) -> None:
    """Return at the first 200 of a request with a key. Raises TimeoutError."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request("GET", PLAIN_PATH, headers={"X-API-Key": KEY})
            if connection.getresponse().status == 200:
                return
        except (ConnectionError, http.client.HTTPException):
            pass  # not there yet
        finally:
            connection.close()
        time.sleep(_LOOK_SECONDS)
    raise TimeoutError(f"nothing answers on port {port} within {_PATIENCE_SECONDS:g} s")


def _occupied(process: Measured, port: int, seconds: float) -> dict[str, float]:
    """At rest, and the most of each while a load goes on."""
    time.sleep(1.0)  # what a start leaves to be done is done
    rest = (process.memory_bytes(), process.descriptors(), process.threads())
    url = f"http://127.0.0.1:{port}{PLAIN_PATH}"
    load = threading.Thread(
        target=apply, args=(url, KEY), kwargs={"connections": CONNECTIONS, "seconds": seconds}
    )
    load.start()
    memory, descriptors = [rest[0]], [rest[1]]
    while load.is_alive():
        load.join(_SAMPLE_SECONDS)
        memory.append(process.memory_bytes())
        descriptors.append(process.descriptors())
    return {
        "rest_bytes": float(rest[0]),
        "loaded_bytes": float(max(memory)),
        "descriptors": float(rest[1]),
        "loaded_descriptors": float(max(descriptors)),
        "threads": float(rest[2]),
    }
