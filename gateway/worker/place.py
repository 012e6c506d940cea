"""What a worker is told when it starts: its slot, its sockets, and where the parent asks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PARENT_SOCKET = "parent.sock"


@dataclass(frozen=True, slots=True)
class Place:
    """Descriptors are inherited ones; `public` are the listening sockets of every slot.

    `control` is the path of the Unix socket on which the worker answers the parent, `socket` the
    listening one of `server.socket`.
    """

    slot: int
    workers: int
    lifeline: int
    control: Path
    public: tuple[tuple[int, ...], ...]
    socket: int | None = None

    @property
    def parent(self) -> Path:
        """The Unix socket on which the parent answers the workers."""
        return self.control.parent / PARENT_SOCKET

    def arguments(self) -> Iterator[str]:
        """On the command line of the worker."""
        yield from ("--slot", str(self.slot), "--workers", str(self.workers))
        yield from ("--lifeline", str(self.lifeline), "--control", str(self.control))
        for descriptors in self.public:
            yield from ("--public", ",".join(map(str, descriptors)))
        if self.socket is not None:
            yield from ("--socket", str(self.socket))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `Place.arguments` makes."""
    for name in ("--slot", "--workers", "--lifeline"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--public", type=_descriptors, action="append", required=True)
    parser.add_argument("--socket", type=int)


def place_of(arguments: argparse.Namespace) -> Place:
    """The place that a command line tells of."""
    return Place(
        slot=arguments.slot,
        workers=arguments.workers,
        lifeline=arguments.lifeline,
        control=arguments.control,
        public=tuple(arguments.public),
        socket=arguments.socket,
    )


def _descriptors(text: str) -> Sequence[int]:
    return tuple(map(int, text.split(",")))
