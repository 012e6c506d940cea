"""The limits of the policy file, compiled: which apply to a request, and how the fields say them.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.core.credential import Principal
from gateway.core.header import structured_integer, structured_string
from gateway.core.window import Quota, WindowState
from gateway.policy.subject import IDENTITY, Subject, fields_of, subject
from gateway.settings.contract import HEALTH
from gateway.settings.policy import Limit, LimitOverride, RateLimitPolicy
from gateway.telemetry.metric import Metrics, Tally

Stage = Literal["address", "key"]
STAGES: tuple[Stage, ...] = ("address", "key")
_UNLIMITED_ROUTES = frozenset({HEALTH})
_WHO = frozenset({"ip", "key", "owner"})


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit as it applies to a route and a tier.

    `policy_item` is its member of `RateLimit-Policy`, `state_item` the beginning of that of
    `RateLimit`. `fields` are the request's, lower-cased, that it counts by; `tagged`: it counts by
    who asks, as the others of its stage do.
    """

    quota: Quota
    subject: Subject
    fields: frozenset[str]
    tagged: bool
    cost: int
    on_store_error: str
    policy_item: str
    state_item: str
    admitted: Tally
    refused: Tally


@dataclass(frozen=True, slots=True)
class Plan:
    """Every limit of one stage for one route and tier.

    `told` are the places of those that are enforced: answers speak of them alone.
    `policy_field` is their `RateLimit-Policy`, the same on every answer.
    """

    rules: tuple[Rule, ...]
    told: tuple[int, ...]
    policy_field: str

    def state_field(self, states: Sequence[WindowState]) -> str:
        """`RateLimit` of these states, which run parallel to the rules."""
        if len(self.told) == 1:
            (only,) = self.told
            return state_member(self.rules[only], states[only])
        return ", ".join([state_member(self.rules[i], states[i]) for i in self.told])


def state_member(rule: Rule, state: WindowState) -> str:
    """A rule's member of `RateLimit`; a wait is rounded up, never announced too short."""
    return f"{rule.state_item}{state.remaining};t={math.ceil(state.reset_seconds)}"


def stage_of(limit: Limit) -> Stage:
    """When a limit is decided: by the address before the key is known, all others after.

    A limit that counts neither by address nor by who asks (a route's, a header's) comes after the
    key too: strangers must not use up what it holds for everyone.
    """
    by = set(limit.by)
    return "address" if "ip" in by and not by & IDENTITY else "key"


class Planner:
    """Finds the limits of one stage for a request; each combination is compiled once.

    Routes, tiers and keys with limits of their own come from settings, so the combinations are few.
    Raises ValueError for a limit whose name is not ASCII.
    """

    def __init__(self, policy: RateLimitPolicy, stage: Stage, metrics: Metrics) -> None:
        self._limits = {
            name: limit
            for name, limit in policy.limits.items()
            if policy.enabled and stage_of(limit) == stage
        }
        self._shadow = policy.mode == "shadow"
        self._tiers = policy.tiers if stage == "key" else {}
        self._keys = policy.keys if stage == "key" else {}
        self._has_variants = bool(self._tiers or self._keys)
        self._metrics = metrics
        self._plans: dict[tuple[str, str | None, str | None], Plan | None] = {}
        self.plan("", None)  # a name that cannot be written is a problem now, not at a request

    def plan(self, route: str, principal: Principal | None) -> Plan | None:
        """The limits of a route for whoever asks; None when there are none."""
        tier = key = None
        if self._has_variants and principal is not None:
            tier = principal.tier if principal.tier in self._tiers else None
            key = principal.lineage if principal.lineage in self._keys else None
        variant = (route, tier, key)
        try:
            return self._plans[variant]
        except KeyError:
            plan = self._plans[variant] = self._compiled(route, tier, key)
            return plan

    def _compiled(self, route: str, tier: str | None, key: str | None) -> Plan | None:
        overrides = {**self._tiers.get(tier or "", {}), **self._keys.get(key or "", {})}
        rules = tuple(
            self._rule(name, limit, route, overrides.get(name))
            for name, limit in self._limits.items()
            if route not in _UNLIMITED_ROUTES
            and (not route or not limit.routes or route in limit.routes)
        )
        if not rules:
            return None
        told = tuple(i for i, rule in enumerate(rules) if not rule.quota.shadow)
        return Plan(rules, told, ", ".join(rules[i].policy_item for i in told))

    def _rule(self, name: str, limit: Limit, route: str, override: LimitOverride | None) -> Rule:
        shadow = self._shadow or limit.mode == "shadow"
        count, seconds = limit.limit, limit.window
        if override is not None:
            count, seconds = override.limit, override.window or limit.window
        item = structured_string(name)
        return Rule(
            quota=Quota(name, count, seconds, shadow),
            subject=subject(limit.by),
            fields=fields_of(limit.by),
            tagged=not _WHO.isdisjoint(limit.by),
            cost=limit.cost.get(route, 1),
            on_store_error=limit.on_store_error,
            policy_item=f"{item};q={count};w={structured_integer(seconds)}",
            state_item=f"{item};r=",
            admitted=self._counted(name, "admitted"),
            refused=self._counted(name, "shadow" if shadow else "refused"),
        )

    def _counted(self, name: str, decision: str) -> Tally:
        return self._metrics.tally(self._metrics.rate_limit_decisions_total, name, decision)
