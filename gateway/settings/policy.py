"""Typed policy files (`policies/*.yaml`): what traffic may do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.settings.model import Model, PositiveSeconds, Seconds, Size

Mode = Literal["enforce", "shadow"]
Sha256 = Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")]


class PublicRoute(Model):
    """A request that needs no key."""

    path: str
    methods: tuple[str, ...] = ()


class KeyEntry(Model):
    """One API key: its hash, never the key. `expires` is RFC 3339."""

    id: str
    hash: Sha256
    owner: str
    scopes: tuple[str, ...] = ("jobs:read", "jobs:write", "webhooks")
    expires: str | None = None


class KeyLookup(Model):
    """Where a request carries its key."""

    header: str = "X-API-Key"
    bearer: bool = True


class AuthPolicy(Model):
    """`policies/auth.yaml`. `scopes` maps a route's name to what it needs (any one of them)."""

    mode: Mode = "enforce"
    enabled: bool = True
    keys: KeyLookup = KeyLookup()
    entries: tuple[KeyEntry, ...] = ()
    public: tuple[PublicRoute, ...] = ()
    scopes: dict[str, tuple[str, ...]] = {}


class Limit(Model):
    """A sliding window: at most `limit` requests in any `window`. No routes means all."""

    limit: Annotated[int, Field(ge=1)]
    window: PositiveSeconds
    by: tuple[Literal["ip", "key"], ...] = ("ip",)
    routes: tuple[str, ...] = ()
    mode: Mode = "enforce"


class RateLimitPolicy(Model):
    """`policies/rate_limits.yaml`."""

    enabled: bool = True
    limits: dict[str, Limit] = {}
    legacy_headers: bool = False


class CachePolicy(Model):
    """`policies/cache.yaml`: job statuses. A running job's `ttl` is short, a completed one's long.

    Routes in `public` are shared by all keys; else the principal is part of the cache key. When the
    upstream takes longer than `slow_upstream`, a stale answer is served while it thinks.
    """

    enabled: bool = True
    ttl: Seconds = 300.0
    ttl_by_state: dict[str, Seconds] = {}
    max_bytes: Size = 64 * 1024**2
    slow_upstream: Seconds = 0.5
    public: tuple[str, ...] = ()


class SecurityHeaderPolicy(Model):
    """`policies/security_headers.yaml`; a header set to null is not sent."""

    enabled: bool = True
    headers: dict[str, str | None] = {}


class PolicySet(Model):
    """Every policy file together, as the gateway applies them: all or nothing."""

    auth: AuthPolicy = AuthPolicy()
    rate_limits: RateLimitPolicy = RateLimitPolicy()
    cache: CachePolicy = CachePolicy()
    security_headers: SecurityHeaderPolicy = SecurityHeaderPolicy()
