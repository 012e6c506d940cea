"""Where `gateway keys` does its work: a running gateway's admin listener, or the store itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import quote

from gateway.app.keys import open_keys
from gateway.cli.admin_api import AdminApi, Document
from gateway.cli.desk import Reach
from gateway.policy.key_issuer import Issued, KeyIssuer
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.store.key import KeyStore
from gateway.web.keys import key_document

_BY = "command-line"
_PAGE = 1000


class KeyDesk(Protocol):
    """What can be done with keys; documents are those of the admin API."""

    async def create(self, document: Mapping[str, Any]) -> Document:
        """The new key, `key` its secret."""
        ...

    async def list(self, owner: str | None) -> list[Document]:
        """Every key of an owner; None: of all."""
        ...

    async def rotate(self, key_id: str, document: Mapping[str, Any]) -> Document:
        """The successor, `key` its secret, `predecessor` the key with its new end."""
        ...

    async def revoke(self, key_id: str) -> None:
        """End it at once."""
        ...


class _Remote:
    """Over the admin API."""

    def __init__(self, api: AdminApi) -> None:
        self._api = api

    async def create(self, document: Mapping[str, Any]) -> Document:
        return await self._api.ask("POST", "/keys", json=document)

    async def list(self, owner: str | None) -> list[Document]:
        found: list[Document] = []
        query = {"limit": str(_PAGE), **({"owner": owner} if owner is not None else {})}
        while True:
            page = await self._api.ask("GET", "/keys", params=query)
            found += page["keys"]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    async def rotate(self, key_id: str, document: Mapping[str, Any]) -> Document:
        return await self._api.ask("POST", f"/keys/{quote(key_id, safe='')}/rotate", json=document)

    async def revoke(self, key_id: str) -> None:
        await self._api.ask("DELETE", f"/keys/{quote(key_id, safe='')}")


class _Local:
    """In the store, while no gateway runs on it or every gateway shares it."""

    def __init__(self, issuer: KeyIssuer, store: KeyStore) -> None:
        self._issuer = issuer
        self._store = store

    async def create(self, document: Mapping[str, Any]) -> Document:
        return self._issued(await self._issuer.create(document, _BY))

    async def list(self, owner: str | None) -> list[Document]:
        found: list[Document] = []
        cursor: str | None = None
        while True:
            page, cursor = await self._store.list(owner, cursor, _PAGE)
            found += [
                key_document(record.key, self._issuer.now(), record.last_used_at) for record in page
            ]
            if cursor is None:
                return found

    async def rotate(self, key_id: str, document: Mapping[str, Any]) -> Document:
        return self._issued(await self._issuer.rotate(key_id, document, _BY))

    async def revoke(self, key_id: str) -> None:
        await self._issuer.revoke(key_id, _BY)

    def _issued(self, issued: Issued) -> Document:
        now = self._issuer.now()
        document = {**key_document(issued.key, now), "key": issued.secret}
        if issued.predecessor is not None:
            document["predecessor"] = key_document(issued.predecessor, now)
        return document


@asynccontextmanager
async def _open_local(settings: Settings, policies: PolicySet) -> AsyncIterator[KeyDesk]:
    async with open_keys(settings, policies) as (issuer, store):
        yield _Local(issuer, store)


REACH: Reach[KeyDesk] = Reach(_Remote, _open_local)
