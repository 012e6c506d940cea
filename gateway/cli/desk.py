"""Where a command does its work: at a running gateway's admin listener, or in the store itself."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from gateway.cli.admin_api import HINT, AdminApi, open_admin_api
from gateway.cli.failure import fail
from gateway.core.error import GatewayError, SettingsError
from gateway.settings.load import load, load_policies, policies_directory
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.settings.telemetry import Log
from gateway.telemetry.log import configure

DeskT = TypeVar("DeskT")
FoundT = TypeVar("FoundT")


@dataclass(frozen=True, slots=True)
class Reach(Generic[DeskT]):
    """The two ways to one desk: both answer with the documents of the admin API."""

    remote: Callable[[AdminApi], DeskT]
    local: Callable[[Settings, PolicySet], AbstractAsyncContextManager[DeskT]]


@asynccontextmanager
async def open_desk(reach: Reach[DeskT], admin: str | None, config: Path) -> AsyncIterator[DeskT]:
    """The gateway whose admin listener is at the URL `admin`, else the store that `config` names.

    Raises SettingsError when there is no admin key, or the store cannot be used.
    """
    if admin is not None:
        async with open_admin_api(admin) as api:
            yield reach.remote(api)
        return
    settings = load(config, os.environ)
    policies = load_policies(policies_directory(config, settings))
    async with AsyncExitStack() as stack:
        try:
            desk = await stack.enter_async_context(reach.local(settings, policies))
        except SettingsError as error:
            raise SettingsError([*error.problems, HINT]) from error
        yield desk


def at_desk(
    reach: Reach[DeskT],
    arguments: argparse.Namespace,
    work: Callable[[DeskT], Awaitable[FoundT]],
    show: Callable[[FoundT], None],
) -> int:
    """Do `work` at the desk that `--admin` and `--config` lead to; the exit code.

    What it finds is shown, or printed as JSON where the command has `--json` and it was given.
    """
    configure(Log(level="warning"), sys.stderr)

    async def done() -> FoundT:
        async with open_desk(reach, arguments.admin, arguments.config) as desk:
            return await work(desk)

    try:
        found = asyncio.run(done())
    except GatewayError as error:
        errors = error.extra.get("errors", [])
        said = [f"{each['pointer'].removeprefix('#/')}: {each['detail']}" for each in errors]
        return fail(*(said or [error.detail]))
    if getattr(arguments, "json", False):
        print(json.dumps(found, indent=2))
    else:
        show(found)
    return 0
