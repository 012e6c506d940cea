"""Processes under measurement: pinned to a core; CPU time and memory with their children's."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

PROXY_CORE, LOAD_CORE = 0, 1
_READY_SECONDS = 30.0


class Measured:
    """A running process and its children."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def cpu_seconds(self) -> float:
        """User and system time spent so far."""
        return sum(each.user + each.system for each in map(psutil.Process.cpu_times, self._tree()))

    def memory_bytes(self) -> int:
        """Memory of its own: shared pages count for the processes that share them (PSS)."""
        return sum(each.memory_full_info().pss for each in self._tree())

    def descriptors(self) -> int:
        """Open file descriptors, sockets among them."""
        return sum(each.num_fds() for each in self._tree())

    def threads(self) -> int:
        """Threads, each process's first among them."""
        return sum(each.num_threads() for each in self._tree())

    def _tree(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


@contextmanager
def started(command: Sequence[str], port: int, core: int, output: Path) -> Iterator[Measured]:
    """Run a command pinned to a core until the block ends; it is ready when its port answers.

    Raises RuntimeError with what it printed when it ends first or never listens.
    """
    with _pinned(command, core, output) as process:
        _await(process, port, output)
        yield Measured(process.pid)


@contextmanager
def launched(command: Sequence[str], core: int, output: Path) -> Iterator[Measured]:
    """As `started`, but does not wait until it is ready."""
    with _pinned(command, core, output) as process:
        yield Measured(process.pid)


@contextmanager
def _pinned(command: Sequence[str], core: int, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as sink:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of loopback that nothing uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _await(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    said = output.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} does not listen on port {port}:\n{said}")
