"""Where `gateway convex` does its work: a running gateway's admin listener, or the store itself.

Both answer with the documents of the admin API, and take its query strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.app.convex import open_convex
from gateway.cli.admin_api import AdminApi, Document
from gateway.cli.desk import Reach


class Desk(Protocol):
    """What can be asked; `raw_query` as after a `?`."""

    async def dead(self, raw_query: str) -> Document:
        """A page of dead letters."""
        ...

    async def replay(self, document: Mapping[str, Any]) -> Document:
        """Send again: `id`, or `all`."""
        ...


class _Remote:
    """Over the admin API."""

    def __init__(self, api: AdminApi) -> None:
        self._api = api

    async def dead(self, raw_query: str) -> Document:
        return await self._api.ask("GET", f"/convex/dead?{raw_query}")

    async def replay(self, document: Mapping[str, Any]) -> Document:
        return await self._api.ask("POST", "/convex/replay", json=document)


REACH: Reach[Desk] = Reach(_Remote, open_convex)
