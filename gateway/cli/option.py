"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

# What `add_subparsers` returns; argparse has no public name for it.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - above


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`."""
    parser.add_argument(
        "--config", type=Path, default=Path("gateway.yaml"), help="default: %(default)s"
    )
