"""Where `gateway jobs` does its work: a running gateway's admin listener, or the store itself.

Both answer with the documents of the admin API, and take its query strings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import quote

from gateway.app.jobs import open_jobs
from gateway.cli.admin_api import AdminApi, Document
from gateway.cli.desk import Reach
from gateway.core.audit import OPERATOR
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.web.job_admin import JobDesk


class Desk(Protocol):
    """What can be asked; `raw_query` as after a `?`."""

    async def list(self, raw_query: str) -> Document:
        """A page of jobs."""
        ...

    async def show(self, job_id: str) -> Document:
        """One job."""
        ...

    async def events(self, job_id: str, raw_query: str) -> Document:
        """A page of its events."""
        ...

    async def deliveries(self, job_id: str) -> Document:
        """Who was told of them."""
        ...

    async def replay(self, job_id: str, document: Mapping[str, Any]) -> Document:
        """Send again: to `webhook_id`, of one `event` or all."""
        ...


class _Remote:
    """Over the admin API."""

    def __init__(self, api: AdminApi) -> None:
        self._api = api

    async def list(self, raw_query: str) -> Document:
        return await self._api.ask("GET", f"/jobs?{raw_query}")

    async def show(self, job_id: str) -> Document:
        return await self._api.ask("GET", _path(job_id))

    async def events(self, job_id: str, raw_query: str) -> Document:
        return await self._api.ask("GET", f"{_path(job_id)}/events?{raw_query}")

    async def deliveries(self, job_id: str) -> Document:
        return await self._api.ask("GET", f"{_path(job_id)}/deliveries")

    async def replay(self, job_id: str, document: Mapping[str, Any]) -> Document:
        return await self._api.ask("POST", f"{_path(job_id)}/replay", json=document)


class _Local:
    """In the store, while no gateway runs on it or every gateway shares it."""

    def __init__(self, desk: JobDesk) -> None:
        self.list = desk.list
        self.show = desk.show
        self.events = desk.events
        self.deliveries = desk.deliveries
        self._send_again = desk.send_again

    async def replay(self, job_id: str, document: Mapping[str, Any]) -> Document:
        return await self._send_again(job_id, document, OPERATOR)


def _path(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"


@asynccontextmanager
async def _open_local(settings: Settings, policies: PolicySet) -> AsyncIterator[Desk]:
    async with open_jobs(settings, policies) as desk:
        yield _Local(desk)


REACH: Reach[Desk] = Reach(_Remote, _open_local)
