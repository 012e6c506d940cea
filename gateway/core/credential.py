"""API keys: how they look, how they are hashed, and who they stand for."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KEY_PREFIX = "gw_"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a valid key stands for. `owner` outlives rotations of the key."""

    key_id: str
    owner: str
    scopes: frozenset[str]

    def allows(self, scope: str) -> bool:
        """True when this scope, or `admin` over all, was granted."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the policy file holds it: only its hash. `expires_at` is epoch seconds."""

    key_id: str
    sha256: str
    owner: str
    scopes: frozenset[str]
    expires_at: float | None = None

    @property
    def principal(self) -> Principal:
        """Who this key stands for."""
        return Principal(self.key_id, self.owner, self.scopes)


def format_key(token: bytes) -> str:
    """A key's text from random bytes (at least 24)."""
    if len(token) < 24:
        raise ValueError("a key needs at least 24 random bytes")
    return KEY_PREFIX + token.hex()


def hash_key(secret: str) -> str:
    """Hex SHA-256. Keys are random and long: a fast hash is enough, no guessing to slow down."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def index_keys(keys: Sequence[Key]) -> Mapping[str, Key]:
    """Keys by hash, for one lookup a request."""
    return {key.sha256: key for key in keys}


def find_key(keys: Mapping[str, Key], secret: str, now: float) -> Key | None:
    """The active key that `secret` is, or None: found by hash, compared in constant time."""
    digest = hash_key(secret)
    key = keys.get(digest)
    if key is None or not hmac.compare_digest(key.sha256, digest):
        return None
    if key.expires_at is not None and key.expires_at <= now:
        return None
    return key
