"""The listening sockets, bound by the parent once and inherited by every worker.

Each slot has one of its own (SO_REUSEPORT): the kernel spreads new connections over them, and wakes
one worker for each. A socket stays open in the parent when its worker dies, so a connection that
waits in its queue is not reset, but accepted by whoever has the slot next.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.settings.server import Server

_Address = tuple[socket.AddressFamily, Any]


@dataclass(frozen=True, slots=True)
class Sockets:
    """By slot the public ones, one for each address of the host; and the one of `server.socket`."""

    port: int
    public: Sequence[Sequence[socket.socket]]
    unix: socket.socket | None

    @property
    def descriptors(self) -> Iterator[int]:
        """All that a worker inherits."""
        for each in self.public:
            yield from (one.fileno() for one in each)
        if self.unix is not None:
            yield self.unix.fileno()

    def close(self) -> None:
        """Close them all; the path of the Unix socket goes too."""
        for each in self.public:
            for one in each:
                one.close()
        if self.unix is not None:
            path = self.unix.getsockname()
            self.unix.close()
            with suppress(OSError):
                Path(path).unlink()


def bind(server: Server, workers: int) -> Sockets:
    """Bound sockets, which nobody listens on yet; port 0 takes a free one.

    Raises OSError for a port that another process has.
    """
    port = server.public.port
    opened: list[list[socket.socket]] = []
    try:
        for slot in range(workers):
            opened.append(mine := [])
            for family, address in _addresses(server.public.host, port):
                here = (address[0], port, *address[2:])
                if slot == 0 and not server.reuse_port:
                    _socket(family, here, shared=False).close()  # fails when somebody listens there
                mine.append(_socket(family, here, shared=True))
                port = port or mine[0].getsockname()[1]
        unix = None if server.socket is None else _unix(server.socket)
    except BaseException:  # whatever stops it passes on, but leaves no socket open
        for each in opened:
            for one in each:
                one.close()
        raise
    return Sockets(port, opened, unix)


def _addresses(host: str, port: int) -> Sequence[_Address]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _socket(family: socket.AddressFamily, address: Any, *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
    except OSError as error:
        made.close()
        # In the words of asyncio, so that one port in use is one sentence wherever it is met.
        reason = os.strerror(error.errno or errno.EINVAL).lower()
        said = f"error while attempting to bind on address {address[:2]}: {reason}"
        raise OSError(error.errno, said) from error
    return made


def _unix(path: str) -> socket.socket:
    """A socket at `path`; what a gateway before this one left there is removed."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(Path(path).stat().st_mode):
            Path(path).unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    try:
        made.bind(path)
    except OSError as error:
        made.close()
        raise OSError(error.errno, error.strerror, path) from error
    return made
