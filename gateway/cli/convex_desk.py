"""Where `gateway convex` does its work: a running gateway's admin listener, or the store itself.

Both answer with the documents of the admin API, and take its query strings.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from gateway.app.convex import open_convex
from gateway.cli.admin_api import HINT, AdminApi, Document, open_admin_api
from gateway.core.error import SettingsError
from gateway.settings.load import load, load_policies, policies_directory


class Desk(Protocol):
    """What can be asked; `raw_query` as after a `?`."""

    async def dead(self, raw_query: str) -> Document:
        """A page of dead letters."""
        ...

    async def replay(self, document: Mapping[str, Any]) -> Document:
        """Send again: `id`, or `all`."""
        ...


@asynccontextmanager
async def open_desk(admin: str | None, config: Path) -> AsyncIterator[Desk]:
    """The gateway whose admin listener is at the URL `admin`, else the store that `config` names.

    Raises SettingsError when there is no admin key, or the store cannot be used.
    """
    if admin is not None:
        async with open_admin_api(admin) as api:
            yield _Remote(api)
        return
    settings = load(config, os.environ)
    policies = load_policies(policies_directory(config, settings))
    async with AsyncExitStack() as stack:
        try:
            desk = await stack.enter_async_context(open_convex(settings, policies))
        except SettingsError as error:
            raise SettingsError([*error.problems, HINT]) from error
        yield desk


class _Remote:
    """Over the admin API."""

    def __init__(self, api: AdminApi) -> None:
        self._api = api

    async def dead(self, raw_query: str) -> Document:
        return await self._api.ask("GET", f"/convex/dead?{raw_query}")

    async def replay(self, document: Mapping[str, Any]) -> Document:
        return await self._api.ask("POST", "/convex/replay", json=document)
