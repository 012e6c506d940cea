"""`gateway worker`: what `gateway serve` starts for each of several workers; not for people."""

from __future__ import annotations

import argparse

from gateway.cli.option import Commands, add_config


def add(commands: Commands) -> None:
    """The command and its options; no help, so it is not listed."""
    from gateway.worker.place import add_arguments

    worker = commands.add_parser("worker")
    add_config(worker)
    add_arguments(worker)
    worker.set_defaults(run=_work)


def _work(arguments: argparse.Namespace) -> int:
    from gateway.app.worker import work
    from gateway.worker.place import place_of

    work(arguments.config, place_of(arguments))
    return 0
