"""`gateway check`: what is wrong with the settings and policies."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.failure import fail
from gateway.cli.option import Commands, add_config
from gateway.core.error import SettingsError

if TYPE_CHECKING:
    from gateway.settings.check_reach import Reach
    from gateway.settings.model import Settings
    from gateway.settings.policy import PolicySet


def add(commands: Commands) -> None:
    """The command and its options."""
    check = commands.add_parser("check", help="say what is wrong with the settings and policies")
    add_config(check)
    check.add_argument("--connect", action="store_true", help="also dial everything they name")
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> int:
    from gateway.settings.check_reach import unmet_scopes
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
            policies = load_policies(directory)
            problems.extend(_told(directory, unmet_scopes(policies)))
            notes = [] if settings is None else _notes(directory, settings, policies)
            print("".join(f"note: {note}\n" for note in notes), end="")
        except SettingsError as error:
            problems.extend(error.problems)
    if problems or settings is None:
        return fail(*problems)
    print(f"{arguments.config} and {directory} are good.")
    return _connect(settings) if arguments.connect else 0


def _notes(directory: Path, settings: Settings, policies: PolicySet) -> list[str]:
    """What is no mistake, but may not be meant."""
    from gateway.settings.check_reach import unmet_routes

    notes = _told(directory, unmet_routes(settings, policies))
    if policies.auth.enabled and not policies.auth.entries:
        notes.append(f"{directory}/auth.yaml has no keys yet; see 'gateway keys create'")
    return notes


def _told(directory: Path, found: Iterable[Reach]) -> list[str]:
    """Each with its file and line."""
    from gateway.settings import yaml
    from gateway.settings.problem import line

    told = []
    for name, location, said in found:
        file = directory / f"{name}.yaml"
        origins = yaml.load(file).origins if file.exists() else {}
        told.append(line(origins, (location, said), str(file)))
    return told


def _connect(settings: Settings) -> int:
    import asyncio

    from gateway.settings.telemetry import Log
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
