"""`gateway check`: what is wrong with the settings and policies."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from gateway.cli.failure import fail
from gateway.cli.option import Commands, add_config
from gateway.core.error import SettingsError

if TYPE_CHECKING:
    from gateway.settings.model import Settings


def add(commands: Commands) -> None:
    """The command and its options."""
    check = commands.add_parser("check", help="say what is wrong with the settings and policies")
    add_config(check)
    check.add_argument("--connect", action="store_true", help="also dial everything they name")
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from gateway.settings.load import load, load_policies, policies_directory

    problems: list[str] = []
    directory = arguments.config.parent / "policies"
    settings = None
    try:
        settings = load(arguments.config, os.environ)
        directory = policies_directory(arguments.config, settings)
    except SettingsError as error:
        problems.extend(error.problems)
    # The settings may be too wrong to name the directory; its files are looked at all the same.
    if settings is not None or directory.is_dir():
        try:
            auth = load_policies(directory).auth
            if auth.enabled and not auth.entries:
                print(f"note: {directory}/auth.yaml has no keys yet; see 'gateway keys create'")
        except SettingsError as error:
            problems.extend(error.problems)
    if problems or settings is None:
        return fail(*problems)
    print(f"{arguments.config} and {directory} are good.")
    return _connect(settings) if arguments.connect else 0


def _connect(settings: Settings) -> int:
    import asyncio

    from gateway.settings.model import Log
    from gateway.telemetry.log import configure
    from gateway.web.connect import failed

    configure(Log(level="error"), sys.stderr)
    conditions = asyncio.run(_dial(settings))
    width = max(map(len, conditions))
    for name, condition in conditions.items():
        word = "FAILED" if failed(condition) else condition["status"].replace("_", " ")
        said = condition["error"] or f"{condition['latency_seconds']:.3f} s"
        print(f"{name:{width}}  {word:14}  {said}")
    return int(any(failed(condition) for condition in conditions.values()))


async def _dial(settings: Settings) -> dict[str, dict[str, Any]]:
    from gateway.app.dial import redis_component
    from gateway.web.connect import connect

    async with redis_component(settings) as component:
        return await connect(settings, [component])
