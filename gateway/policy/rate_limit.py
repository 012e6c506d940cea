"""Sliding-window rate limits: by address before the key is known, by key after.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal

from gateway.core.error import GatewayError, QuotaExceeded, StoreUnavailable
from gateway.core.header import structured_integer, structured_string
from gateway.core.message import Handler, Request, Response
from gateway.core.window import Hit, WindowState
from gateway.settings.contract import HEALTH
from gateway.settings.policy import Limit, RateLimitPolicy
from gateway.store.base import WindowStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

Stage = Literal["address", "key"]
Fields = MutableMapping[str, str]
_POLICY, _STATE = "RateLimit-Policy", "RateLimit"
_LEGACY_REMAINING = "X-RateLimit-Remaining"
_QUOTA = "quota"  # of the access line: what is left, by limit
_UNLIMITED_ROUTES = frozenset({HEALTH})


@dataclass(frozen=True, slots=True)
class _Rule:
    """A limit of the policy file, and how the fields name it."""

    name: str
    limit: Limit
    item: str

    @property
    def is_shadow(self) -> bool:
        return self.limit.mode == "shadow"


class RateLimit:
    """One stage of the limits; those of a request are decided in one atomic step.

    The `address` stage holds the limits by ip alone; the `key` stage, those by key: a request
    without a key counts there by its address. While `store` is away, `local` takes over. Probes of
    the gateway's own health are never limited.
    """

    def __init__(
        self,
        policy: RateLimitPolicy,
        stage: Stage,
        store: WindowStore,
        local: WindowStore,
        metrics: Metrics,
        now: Callable[[], float],
    ) -> None:
        self._rules = tuple(
            _Rule(name, limit, structured_string(name))
            for name, limit in policy.limits.items()
            if policy.enabled and ("key" in limit.by) == (stage == "key")
        )
        self._by_route: dict[str, tuple[_Rule, ...]] = {}
        self._legacy = policy.legacy_headers
        self._store = store
        self._local = local
        self._is_away = False
        self._metrics = metrics
        self._now = now
        self._log = get_logger("rate_limit")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Count the request, or raise `QuotaExceeded`; every other answer tells what is left."""
        rules = self._rules_of(request.match.name)
        if not rules:
            return await call_next(request)
        at = self._now()
        states = await self._decide([_hit(rule, request) for rule in rules], at)
        self._count(request, rules, states)
        enforced = [pair for pair in zip(rules, states, strict=True) if not pair[0].is_shadow]
        refused = [pair for pair in enforced if not pair[1].admitted]
        if refused:
            raise self._exceeded(refused, at)
        quota = request.fields[_QUOTA]
        known = len(quota)
        try:
            response = await call_next(request)
        except QuotaExceeded:
            raise  # a 429 shows the limits that refused, so that none returns after Retry-After
        except GatewayError as error:
            self._describe(error.headers, enforced, at, nested=len(quota) > known)
            raise
        self._describe(response.headers, enforced, at, nested=len(quota) > known)
        return response

    def _rules_of(self, route: str) -> tuple[_Rule, ...]:
        """The limits of a route. Routes are few, and their names come from settings."""
        if (known := self._by_route.get(route)) is None:
            known = self._by_route[route] = tuple(
                rule
                for rule in self._rules
                if (not rule.limit.routes or route in rule.limit.routes)
                and route not in _UNLIMITED_ROUTES
            )
        return known

    async def _decide(self, hits: Sequence[Hit], at: float) -> Sequence[WindowState]:
        """The limit survives its store: each process then counts for itself."""
        try:
            states = await self._store.hit(hits, at)
        except StoreUnavailable as error:
            self._metrics.store_errors_total.labels("windows").inc()
            if not self._is_away:
                self._log.warning("windows_local", error=error.detail)
            self._is_away = True
            return await self._local.hit(hits, at)
        if self._is_away:
            self._log.info("windows_shared_again")
        self._is_away = False
        return states

    def _count(
        self, request: Request, rules: Sequence[_Rule], states: Sequence[WindowState]
    ) -> None:
        quota = request.fields.setdefault(_QUOTA, {})
        for rule, state in zip(rules, states, strict=True):
            decision = "shadow" if rule.is_shadow else "refused"
            if state.admitted:
                decision = "admitted"
            self._metrics.rate_limit_decisions_total.labels(rule.name, decision).inc()
            if decision == "shadow":
                self._log.info(
                    "rate_limit_shadow",
                    policy=rule.name,
                    route=request.match.name,
                    client=request.client,
                    key_id=request.principal.key_id if request.principal else None,
                    request_id=request.request_id,
                )
            if not rule.is_shadow:
                quota[rule.name] = state.remaining

    def _exceeded(self, refused: Sequence[tuple[_Rule, WindowState]], at: float) -> QuotaExceeded:
        wait = max(1, *(math.ceil(max(s.retry_after_seconds, s.reset_seconds)) for _, s in refused))
        said = ", ".join(
            f"{rule.name} ({state.limit} in {state.window_seconds:g} s)" for rule, state in refused
        )
        error = QuotaExceeded(
            f"Too many requests for {said}; try again in {wait} s.",
            extra={"violated-policies": [rule.name for rule, _ in refused]},
            headers={"Retry-After": str(wait)},
        )
        self._set(error.headers, refused, at)
        return error

    def _describe(
        self,
        headers: Fields,
        pairs: Sequence[tuple[_Rule, WindowState]],
        at: float,
        *,
        nested: bool,
    ) -> None:
        """Add this stage's limits to those of the stage `nested` in it; replace the upstream's."""
        if not pairs:
            return
        if not nested:
            self._set(headers, pairs, at)
            return
        inner = {name: value for name, value in headers.items() if name in (_POLICY, _STATE)}
        tightest = min(state.remaining for _, state in pairs)
        legacy = self._legacy and tightest < int(headers[_LEGACY_REMAINING])
        self._set(headers, pairs, at, legacy=legacy)
        for name, value in inner.items():
            headers[name] = f"{headers[name]}, {value}"

    def _set(
        self,
        headers: Fields,
        pairs: Sequence[tuple[_Rule, WindowState]],
        at: float,
        *,
        legacy: bool | None = None,
    ) -> None:
        headers[_POLICY] = ", ".join(
            f"{rule.item};q={structured_integer(state.limit)}"
            f";w={structured_integer(state.window_seconds)}"
            for rule, state in pairs
        )
        headers[_STATE] = ", ".join(
            f"{rule.item};r={structured_integer(state.remaining)}"
            f";t={structured_integer(state.reset_seconds)}"
            for rule, state in pairs
        )
        if self._legacy if legacy is None else legacy:
            _, tightest = min(pairs, key=lambda pair: pair[1].remaining)
            headers["X-RateLimit-Limit"] = str(tightest.limit)
            headers[_LEGACY_REMAINING] = str(tightest.remaining)
            headers["X-RateLimit-Reset"] = str(math.ceil(at + tightest.reset_seconds))


def address_subject(client: str) -> str:
    """What an address counts as: itself, or for IPv6 its /64, which one host can move about in."""
    if ":" not in client:
        return client
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    assert isinstance(address, IPv6Address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), 64), strict=False))


def _hit(rule: _Rule, request: Request) -> Hit:
    key = request.principal.key_id if request.principal else None
    subjects = dict.fromkeys(
        f"key:{key}"
        if each == "key" and key is not None
        else f"ip:{address_subject(request.client)}"
        for each in rule.limit.by
    )
    return Hit(
        policy=rule.name,
        key="|".join(subjects),
        limit=rule.limit.limit,
        window_seconds=rule.limit.window,
        shadow=rule.is_shadow,
    )
