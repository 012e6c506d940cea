"""`gateway demo`: the whole product at work."""

from __future__ import annotations

import argparse

from gateway.cli.option import Commands


def add(commands: Commands) -> None:
    """The command and its options."""
    demo = commands.add_parser("demo", help="watch the whole product work, with no setup")
    demo.add_argument("--once", action="store_true", help="end by itself; exit code 0 if all went")
    demo.add_argument("--json", action="store_true", help="print a summary object last")
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from gateway.demo.main import run

    return run(once=arguments.once, json=arguments.json)
