"""Makes keys, replaces and revokes them: what the admin API and the command line have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.core.credential import Key, format_key, hash_key
from gateway.core.error import Conflict, NotFound
from gateway.policy.key_input import KeyInput
from gateway.store.key import KeyRecord, KeyStore
from gateway.telemetry.log import get_logger

_CREATE = ("id", "owner", "name", "scopes", "tier", "networks", "expires_at")
_ROTATE = ("id", "overlap", "expires_at")


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key with its secret, which nobody can be told again; and the key it succeeds."""

    key: Key
    secret: str
    predecessor: Key | None = None


class KeyIssuer:
    """Issues keys into a store.

    `scopes` and `tiers` are those that the policy files know now. `changed` is called after every
    change, so that this process at once knows what it has just written.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        scopes: Callable[[], Collection[str]],
        tiers: Callable[[], Collection[str]],
        changed: Callable[[], Awaitable[None]],
        now: Callable[[], float],
        token: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._scopes = scopes
        self._tiers = tiers
        self._changed = changed
        self.now = now
        self._token = token
        self._log = get_logger("audit")

    async def create(self, document: Mapping[str, Any], by: str) -> Issued:
        """A key as the document describes it, by the key with the id `by`.

        Raises UnprocessableContent naming every member that is wrong, Conflict for an id in use.
        """
        wanted = KeyInput(document, _CREATE, self._scopes(), self._tiers(), self.now())
        values = {
            "owner": wanted.text("owner", required=True),
            "name": wanted.text("name"),
            "scopes": frozenset(wanted.scopes()),
            "tier": wanted.tier(),
            "networks": wanted.networks(),
            "expires_at": wanted.expires_at(),
        }
        key_id = wanted.key_id()
        wanted.violations.raise_any()
        key, secret = self._made(key_id, **values)
        if not await self._store.add(key):
            raise _in_use(key.key_id)
        await self._tell("key_created", key, by)
        return Issued(key, secret)

    async def rotate(self, key_id: str, document: Mapping[str, Any], by: str) -> Issued:
        """A successor with all that the key has; the key itself ends after the `overlap`.

        Raises NotFound, UnprocessableContent, or Conflict for a key that has ended.
        """
        wanted = KeyInput(document, _ROTATE, (), (), self.now())
        overlap = wanted.overlap()
        expires_at = wanted.expires_at()
        successor_id = wanted.key_id()
        wanted.violations.raise_any()
        before = (await self.get(key_id)).key
        now = self.now()
        after, secret = self._made(
            successor_id,
            owner=before.owner,
            name=before.name,
            scopes=before.scopes,
            tier=before.tier,
            networks=before.networks,
            expires_at=expires_at,
            lineage=before.lineage,
        )
        if not await self._store.rotate(key_id, after, now + overlap, now):
            if not before.is_active(now):
                raise Conflict(f"The key {key_id} has ended; create a new one.")
            raise _in_use(after.key_id)
        ends_at = (
            now + overlap if before.expires_at is None else min(before.expires_at, now + overlap)
        )
        before = replace(before, expires_at=ends_at)
        await self._tell("key_rotated", after, by, predecessor=key_id)
        return Issued(after, secret, before)

    async def revoke(self, key_id: str, by: str) -> None:
        """End a key at once. Raises NotFound, or Conflict when it was revoked before."""
        record = await self.get(key_id)
        if not await self._store.revoke(key_id, self.now()):
            raise Conflict(f"The key {key_id} was revoked before.")
        await self._tell("key_revoked", record.key, by)

    async def get(self, key_id: str) -> KeyRecord:
        """One key of the store. Raises NotFound."""
        record = await self._store.get(key_id)
        if record is None:
            raise NotFound(
                f"The store has no key {key_id}; one of policies/auth.yaml is changed in that file."
            )
        return record

    def _made(self, key_id: str | None, **values: Any) -> tuple[Key, str]:
        secret = format_key(self._token(32))
        key_id = key_id or f"key_{self._token(6).hex()}"
        return Key(key_id, hash_key(secret), created_at=self.now(), **values), secret

    async def _tell(self, event: str, key: Key, by: str, **fields: Any) -> None:
        await self._changed()
        self._log.info(event, key_id=key.key_id, owner=key.owner, by=by, **fields)


def _in_use(key_id: str) -> Conflict:
    return Conflict(f"There is a key {key_id} already; choose another id, or none.")
