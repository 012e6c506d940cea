"""What an idle stream costs: memory of each side with many silent streams open, over without."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.origin import STREAM_PATH
from benchmarks.peer import KEY, PEERS
from benchmarks.side_by_side import Side, origin, running

_WAIT_SECONDS = 10.0


def idle(folder: Path, count: int) -> dict[str, float]:
    """Bytes a stream by side, each holding `count` of them."""
    allow_descriptors(count)
    peers = [peer for peer in PEERS if peer.name != "naive"]  # it reads an answer whole
    with origin(folder) as (port, _), running(folder, port, peers) as sides:
        return {side.name: round(_measure(side, count)) for side in sides}


def _measure(side: Side, count: int) -> float:
    with ExitStack() as stack:
        _open(side, stack)  # the first one brings what all share
        before = side.process.memory_bytes()
        for _ in range(count):
            _open(side, stack)
        return (side.process.memory_bytes() - before) / count


def _open(side: Side, stack: ExitStack) -> None:
    """Open a stream and read its first event."""
    host, _, port = side.url.removeprefix("http://").partition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), _WAIT_SECONDS))
    head = f"GET {STREAM_PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nX-API-Key: {KEY}\r\n\r\n"
    connection.sendall(head.encode())
    deadline, seen = time.monotonic() + _WAIT_SECONDS, b""
    while b"data: {}" not in seen and time.monotonic() < deadline:
        chunk = connection.recv(4096)
        if not chunk:
            break
        seen += chunk
    if b"data: {}" not in seen:
        raise RuntimeError(f"{side.name} passed no event on: {seen[:300]!r}")


def allow_descriptors(count: int) -> None:
    """Let this process and its children hold a side's `count` streams at both of its ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * count + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
