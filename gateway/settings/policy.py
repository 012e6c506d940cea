"""Typed policy files (`policies/*.yaml`): what traffic may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from gateway.core.window import MAX_LIMIT
from gateway.settings.base import Mode, Model, PositiveSeconds, Seconds, Size
from gateway.settings.policy_browser import CorsPolicy, SecurityHeaderPolicy
from gateway.settings.policy_validation import ValidationPolicy

Count = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Sha256 = Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")]


class PublicRoute(Model):
    """A request that needs no key."""

    path: str
    methods: tuple[str, ...] = ()


class KeyEntry(Model):
    """One API key: its hash, never the key.

    `expires` is RFC 3339. `networks` are the ranges it may be used from, none meaning any. `tier`
    names limits of `policies/rate_limits.yaml`; `lineage` is the id of the key it succeeds.
    """

    id: str
    hash: Sha256
    owner: str
    name: str | None = None
    scopes: tuple[str, ...] = ("jobs:read", "jobs:write", "webhooks")
    tier: str | None = None
    networks: tuple[str, ...] = ()
    expires: str | None = None
    lineage: str | None = None


class KeyLookup(Model):
    """Where a request carries its key, and where keys are looked up."""

    header: str = "X-API-Key"
    bearer: bool = True
    source: tuple[Literal["file", "store"], ...] = ("file", "store")


class AuthPolicy(Model):
    """`policies/auth.yaml`. `scopes` maps a route's name to what it needs (any one of them)."""

    mode: Mode = "enforce"
    enabled: bool = True
    keys: KeyLookup = KeyLookup()
    entries: tuple[KeyEntry, ...] = ()
    public: tuple[PublicRoute, ...] = ()
    scopes: dict[str, tuple[str, ...]] = {}


class LimitOverride(Model):
    """What a tier or a key has instead of a limit's own figures; no `window` means its own."""

    limit: Count
    window: PositiveSeconds | None = None


class Limit(Model):
    """A sliding window: at most `limit` requests in any `window`. No routes means all.

    `by` says what is counted: `ip`, `key`, `owner`, `route`, `scope`, `header:NAME`, or several of
    them together. `cost` is how much a request on a route counts, 1 where it says nothing.
    `on_store_error` says what happens while the shared store is away.
    """

    limit: Count
    window: PositiveSeconds
    by: tuple[str, ...] = ("ip",)
    routes: tuple[str, ...] = ()
    cost: dict[str, Count] = {}
    mode: Mode = "enforce"
    on_store_error: Literal["local", "allow", "deny"] = "local"


class RateLimitPolicy(Model):
    """`policies/rate_limits.yaml`.

    `tiers` and `keys` (by key id) have other figures for some limits; a key's own win.
    """

    enabled: bool = True
    mode: Mode = "enforce"
    limits: dict[str, Limit] = {}
    tiers: dict[str, dict[str, LimitOverride]] = {}
    keys: dict[str, dict[str, LimitOverride]] = {}
    legacy_headers: bool = False


class HttpCache(Model):
    """What the upstream's own headers let be cached on any other route (RFC 9111).

    Where they give no time, `heuristic_fraction` of the time since `Last-Modified` counts, at most
    `heuristic_max`. `cookies: share` caches in spite of cookies, as the RFC has it: only where no
    answer depends on one. `targets` are the fields that stand above `Cache-Control` (RFC 9213).
    """

    enabled: bool = True
    heuristic_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    heuristic_max: Seconds = 86_400.0
    cookies: Literal["bypass", "share"] = "bypass"
    targets: tuple[str, ...] = ("CDN-Cache-Control",)


class WatchedStatuses(Model):
    """Statuses of jobs whose changes the gateway hears of: polls need not ask the upstream.

    They are fresh for `max_age`, unless `ttl_by_state` is longer or 0. A poll with `Prefer: wait`
    may wait for the job's next change, for `max_wait` at most; so many at once, in all and by one
    key or address.
    """

    max_age: Seconds = 20.0
    max_wait: Seconds = 60.0
    max_waiters: Annotated[int, Field(ge=0)] = 10_000
    max_waiters_per_key: Annotated[int, Field(ge=0)] = 1_000


class CachePolicy(Model):
    """`policies/cache.yaml`. A running job's `ttl` is short, a completed one's long.

    Routes in `public` are shared by all keys; else the principal is part of the cache key. When the
    upstream takes longer than `slow_upstream`, a job's stale status is served while it thinks; when
    it fails, any stale answer is for `stale_if_error`. In shadow nothing stored is served.
    """

    mode: Mode = "enforce"
    enabled: bool = True
    ttl: Seconds = 300.0
    ttl_by_state: dict[str, Seconds] = {}
    watched: WatchedStatuses = WatchedStatuses()
    max_bytes: Size = 64 * 1024**2
    max_entry: Size = 1024**2
    slow_upstream: Seconds = 0.5
    stale_if_error: Seconds = 60.0
    public: tuple[str, ...] = ()
    http: HttpCache = HttpCache()


class IdempotencyPolicy(Model):
    """`policies/idempotency.yaml`: creations that carry `Idempotency-Key`.

    `required` refuses a creation without one. An answer is given again for `retention`.
    """

    mode: Mode = "enforce"
    enabled: bool = True
    required: bool = False
    retention: Annotated[PositiveSeconds, Field(ge=60)] = 86400.0
    on_store_error: Literal["allow", "deny"] = "deny"


class PolicySet(Model):
    """Every policy file together, as the gateway applies them: all or nothing."""

    auth: AuthPolicy = AuthPolicy()
    rate_limits: RateLimitPolicy = RateLimitPolicy()
    cache: CachePolicy = CachePolicy()
    cors: CorsPolicy = CorsPolicy()
    idempotency: IdempotencyPolicy = IdempotencyPolicy()
    security_headers: SecurityHeaderPolicy = SecurityHeaderPolicy()
    validation: ValidationPolicy = ValidationPolicy()

    # What the JSON files that `validation` names hold, by their names.
    _documents: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def documents(self) -> Mapping[str, Any]:
        """The JSON files that the policies name, by name."""
        return self._documents

    def with_documents(self, documents: Mapping[str, Any]) -> PolicySet:
        """The same set, with what its files hold."""
        self._documents.update(documents)
        return self
