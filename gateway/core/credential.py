"""API keys: how they look, how they are hashed, and who they stand for."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

KEY_PREFIX = "gw_"
ADMIN = "admin"  # the scope over all scopes
_KEY = re.compile(r"gw_[0-9a-f]{48}")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a valid key stands for. `owner` outlives rotations of the key.

    `lineage` does so too: it is the id of the first key in a row of successors, and what limits
    count by, so that a rotation neither doubles a quota nor loses one. Without one it is `key_id`.
    `tier` names the limits that are the key's instead of everyone's.
    """

    key_id: str
    owner: str
    scopes: frozenset[str]
    tier: str | None = None
    lineage: str = ""

    def __post_init__(self) -> None:
        if not self.lineage:
            object.__setattr__(self, "lineage", self.key_id)

    def allows(self, scope: str) -> bool:
        """True when this scope, or `admin` over all, was granted."""
        return scope in self.scopes or ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class Key:
    """A key as files and stores hold it: only its hash.

    Times are epoch seconds; from `expires_at` or `revoked_at` on it stands for nobody. `networks`
    are the address ranges it may be used from, none meaning any. `lineage` is as of `Principal`.
    """

    key_id: str
    sha256: str
    owner: str
    scopes: frozenset[str]
    expires_at: float | None = None
    name: str = ""
    tier: str | None = None
    networks: tuple[str, ...] = ()
    lineage: str = ""
    created_at: float = 0.0
    revoked_at: float | None = None
    principal: Principal = field(init=False, repr=False, compare=False)
    ranges: tuple[Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ValueError for a network that is none."""
        principal = Principal(self.key_id, self.owner, self.scopes, self.tier, self.lineage)
        object.__setattr__(self, "lineage", principal.lineage)
        object.__setattr__(self, "principal", principal)
        object.__setattr__(self, "ranges", tuple(map(ip_network, self.networks)))

    def is_active(self, now: float) -> bool:
        """True while it is neither expired nor revoked."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def allows_client(self, client: str) -> bool:
        """True when the key may be used from this address."""
        if not self.ranges:
            return True
        try:
            address = ip_address(client.partition("%")[0])
        except ValueError:
            return False
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.ranges)


def format_key(token: bytes) -> str:
    """A key's text from random bytes (at least 24)."""
    if len(token) < 24:
        raise ValueError("a key needs at least 24 random bytes")
    return KEY_PREFIX + token.hex()


def hash_key(secret: str) -> str:
    """Hex SHA-256. Keys are random and long: a fast hash is enough, no guessing to slow down."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def index_keys(keys: Iterable[Key]) -> dict[str, Key]:
    """Keys by hash, for one lookup a request."""
    return {key.sha256: key for key in keys}


def find_key(secret: str, *sources: Mapping[str, Key]) -> Key | None:
    """The key that `secret` is, or None: found by hash, compared in constant time.

    It may be one that has ended: see `Key.is_active`.
    """
    digest = hash_key(secret)
    for source in sources:
        key = source.get(digest)
        if key is not None:
            return key if hmac.compare_digest(key.sha256, digest) else None
    return None


def holds_key(text: str) -> bool:
    """True when a key of ours stands somewhere in a text where none belongs, such as a URL."""
    return KEY_PREFIX in text and _KEY.search(text) is not None
