"""`gateway serve`: run the gateway."""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.cli.option import Commands, add_config


def add(commands: Commands) -> None:
    """The command and its options."""
    serve = commands.add_parser("serve", help="run the gateway")
    add_config(serve)
    serve.add_argument(
        "--port-file", type=Path, metavar="FILE", help="write the ports in use there, as JSON"
    )
    serve.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from gateway.app import run

    return run(arguments.config, arguments.port_file)
