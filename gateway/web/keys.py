"""`/keys` on the admin listener: API keys of the store, for whoever has the scope `admin`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gateway.core.credential import Key
from gateway.core.error import InvalidRequest
from gateway.core.message import Response
from gateway.policy.key_issuer import Issued, KeyIssuer
from gateway.policy.key_source import KeySource
from gateway.store.key import KeyStore
from gateway.web.admin_key import AdminKey
from gateway.web.document import json_response, parse_object

_PAGE = 100
_MAX_PAGE = 1000
_NOT_STORED = {"Cache-Control": "no-store"}


class KeyApi:
    """Creates, lists, rotates and revokes keys; asks for one itself."""

    def __init__(
        self,
        issuer: KeyIssuer,
        store: KeyStore,
        source: KeySource,
        now: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._store = store
        self._source = source
        self._now = now
        self._callers = AdminKey(source, now)

    def routes(self) -> list[web.RouteDef]:
        """For the admin listener's application."""
        return [
            web.get("/keys", self._list),
            web.post("/keys", self._create),
            web.get("/keys/{key_id}", self._get),
            web.post("/keys/{key_id}/rotate", self._rotate),
            web.delete("/keys/{key_id}", self._revoke),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        owner, cursor = request.query.get("owner"), request.query.get("cursor")
        limit = request.query.get("limit", str(_PAGE))
        if not limit.isdecimal() or not 1 <= int(limit) <= _MAX_PAGE:
            raise InvalidRequest(f"limit must be a whole number from 1 to {_MAX_PAGE}.")
        page, following = await self._store.list(owner, cursor, int(limit))
        listed = (
            []
            if cursor
            else [
                self._shown(key, None, "file")
                for key in self._source.listed.values()
                if owner in (None, key.owner)
            ]
        )
        stored = [self._shown(record.key, record.last_used_at, "store") for record in page]
        return _sent(200, {"keys": [*listed, *stored], "next_cursor": following})

    async def _get(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        record = await self._issuer.get(request.match_info["key_id"])
        return _sent(200, self._shown(record.key, record.last_used_at, "store"))

    async def _create(self, request: web.Request) -> web.Response:
        caller = self._callers.caller(request)
        issued = await self._issuer.create(parse_object(await request.read()), caller.key_id)
        return self._issued(issued)

    async def _rotate(self, request: web.Request) -> web.Response:
        caller = self._callers.caller(request)
        raw = await request.read()
        document = parse_object(raw) if raw else {}
        issued = await self._issuer.rotate(request.match_info["key_id"], document, caller.key_id)
        return self._issued(issued)

    async def _revoke(self, request: web.Request) -> web.Response:
        caller = self._callers.caller(request)
        await self._issuer.revoke(request.match_info["key_id"], caller.key_id)
        return web.Response(status=204, headers=_NOT_STORED)

    def _issued(self, issued: Issued) -> web.Response:
        document = {**key_document(issued.key, self._now()), "key": issued.secret}
        if issued.predecessor is not None:
            document["predecessor"] = key_document(issued.predecessor, self._now())
        return _sent(201, document, {"Location": f"/keys/{issued.key.key_id}"})

    def _shown(self, key: Key, last_used_at: float | None, source: str) -> dict[str, Any]:
        used = self._source.used.get(key.key_id, last_used_at)
        return key_document(key, self._now(), used, source)


def key_document(
    key: Key, now: float, last_used_at: float | None = None, source: str = "store"
) -> dict[str, Any]:
    """A key as the API shows it: never the key itself, nor its hash. Times are epoch seconds."""
    state = "active" if key.is_active(now) else "expired" if key.revoked_at is None else "revoked"
    return {
        "id": key.key_id,
        "owner": key.owner,
        "name": key.name,
        "state": state,
        "scopes": sorted(key.scopes),
        "tier": key.tier,
        "networks": list(key.networks),
        "lineage": key.lineage,
        "created_at": _time(key.created_at or None),
        "expires_at": _time(key.expires_at),
        "revoked_at": _time(key.revoked_at),
        "last_used_at": _time(last_used_at),
        "source": source,
    }


def _time(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _sent(
    status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> web.Response:
    response: Response = json_response(status, document, {**_NOT_STORED, **(headers or {})})
    assert isinstance(response.body, bytes)
    return web.Response(status=status, headers=response.headers, body=response.body)
