"""Who may change things on the admin listener: a key with the scope `admin`."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from gateway.core.credential import ADMIN, Key, find_key
from gateway.core.error import Forbidden, InvalidRequest, Unauthorized
from gateway.policy.key_source import KeySource


class AdminKey:
    """Finds the caller's key, one of the policy file or of the store; `now` gives epoch seconds."""

    def __init__(self, source: KeySource, now: Callable[[], float]) -> None:
        self._source = source
        self._now = now

    def caller(self, request: web.Request) -> Key:
        """Who asks. Raises Unauthorized or Forbidden."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = request.headers.getall("X-API-Key", [])
        if scheme.lower() == "bearer":
            given = [*given, token.strip()]
        if len(given) > 1:
            raise InvalidRequest("The request carries more than one API key; send one.")
        key = find_key(given[0], self._source.listed, self._source.by_hash) if given else None
        if (
            key is None
            or not key.is_active(self._now())
            or not key.allows_client(request.remote or "")
        ):
            raise Unauthorized(
                "Send an API key with the scope admin, in X-API-Key or as a bearer token.",
                headers={"WWW-Authenticate": 'Bearer realm="gateway-admin"'},
            )
        if ADMIN not in key.scopes:
            raise Forbidden("This needs the scope admin, which the key does not have.")
        self._source.used[key.key_id] = self._now()
        return key
