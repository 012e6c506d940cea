"""Where `gateway webhooks` does its work: a running gateway's admin listener, or the store itself.

Both answer with the documents of the admin API, and take its query strings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import quote

from gateway.app.webhooks import open_webhooks
from gateway.cli.admin_api import AdminApi, Document
from gateway.cli.desk import Reach
from gateway.core.audit import OPERATOR
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.web.webhook_admin import WebhookDesk


class Desk(Protocol):
    """What can be asked; `raw_query` as after a `?`."""

    async def list(self, raw_query: str) -> Document:
        """A page of webhooks."""
        ...

    async def show(self, webhook_id: str) -> Document:
        """One webhook."""
        ...

    async def deliveries(self, webhook_id: str, raw_query: str) -> Document:
        """A page of its deliveries."""
        ...

    async def replay(self, webhook_id: str, document: Mapping[str, Any]) -> Document:
        """Send again: `delivery_id`, or `since` and `cursor`."""
        ...

    async def lines(self, raw_query: str) -> Document:
        """A page of the audit log."""
        ...


class _Remote:
    """Over the admin API."""

    def __init__(self, api: AdminApi) -> None:
        self._api = api

    async def list(self, raw_query: str) -> Document:
        return await self._api.ask("GET", f"/webhooks?{raw_query}")

    async def show(self, webhook_id: str) -> Document:
        return await self._api.ask("GET", _path(webhook_id))

    async def deliveries(self, webhook_id: str, raw_query: str) -> Document:
        return await self._api.ask("GET", f"{_path(webhook_id)}/deliveries?{raw_query}")

    async def replay(self, webhook_id: str, document: Mapping[str, Any]) -> Document:
        return await self._api.ask("POST", f"{_path(webhook_id)}/replay", json=document)

    async def lines(self, raw_query: str) -> Document:
        return await self._api.ask("GET", f"/audit?{raw_query}")


class _Local:
    """In the store, while no gateway runs on it or every gateway shares it."""

    def __init__(self, desk: WebhookDesk) -> None:
        self.list = desk.list
        self.show = desk.show
        self.deliveries = desk.deliveries
        self.lines = desk.lines
        self._send_again = desk.send_again

    async def replay(self, webhook_id: str, document: Mapping[str, Any]) -> Document:
        return await self._send_again(webhook_id, document, OPERATOR)


def _path(webhook_id: str) -> str:
    return f"/webhooks/{quote(webhook_id, safe='')}"


@asynccontextmanager
async def _open_local(settings: Settings, policies: PolicySet) -> AsyncIterator[Desk]:
    async with open_webhooks(settings, policies) as desk:
        yield _Local(desk)


REACH: Reach[Desk] = Reach(_Remote, _open_local)
