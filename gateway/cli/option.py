"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

# What `add_subparsers` returns; argparse has no public name for it.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - above


KEY_VARIABLE = "GATEWAY_ADMIN_KEY"


def add_admin(parser: argparse._ActionsContainer) -> None:
    """`--admin URL`."""
    parser.add_argument(
        "--admin",
        metavar="URL",
        help=f"through the gateway whose admin listener is there; its key is in {KEY_VARIABLE}",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`."""
    parser.add_argument(
        "--config", type=Path, default=Path("gateway.yaml"), help="default: %(default)s"
    )


def add_desk(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    """What a command of a desk takes, and the command: `--json`, `--admin URL`, `--config FILE`."""
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_admin(parser)
    add_config(parser)
    parser.set_defaults(run=run)
