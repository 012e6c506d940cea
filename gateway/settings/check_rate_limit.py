"""Rules of `policies/rate_limits.yaml` that need more than one value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.settings.check_policy import TOKEN, route
from gateway.settings.policy import Limit, LimitOverride, PolicySet, RateLimitPolicy
from gateway.settings.problem import Problem, nearest
from gateway.settings.yaml import Location

HEADER = "header:"
SUBJECTS = ("ip", "key", "owner", "route", "scope")
_IDENTITY = ("key", "owner", "scope")
_MAX_WINDOW_SECONDS = 366 * 86_400.0


def check_rate_limits(policy: RateLimitPolicy) -> Iterator[Problem]:
    """The rules that `policies/rate_limits.yaml` breaks."""
    for name, limit in policy.limits.items():
        here = ("limits", name)
        if not (name.isascii() and name.isprintable() and name):
            yield here, "must be named in printable ASCII: the answers' fields show it"
        for index, each in enumerate(limit.routes):
            yield from route(each, (*here, "routes", index))
        yield from _window(limit.window, (*here, "window"))
        yield from _by(limit, (*here, "by"))
        yield from _cost(limit, (*here, "cost"))
    for section in ("tiers", "keys"):
        for name, overrides in getattr(policy, section).items():
            yield from _overrides(policy, overrides, (section, name))


def check_tiers(policies: PolicySet) -> Iterator[Problem]:
    """The tiers of `policies/auth.yaml` that `policies/rate_limits.yaml` does not have."""
    known = tuple(policies.rate_limits.tiers)
    for index, entry in enumerate(policies.auth.entries):
        if entry.tier is not None and entry.tier not in known:
            said = nearest(entry.tier, known) if known else "rate_limits.yaml has none"
            yield ("entries", index, "tier"), f"unknown tier; {said}"


def _window(seconds: float, location: Location) -> Iterator[Problem]:
    if seconds > _MAX_WINDOW_SECONDS:
        yield location, "must not be longer than 366d"


def _by(limit: Limit, here: Location) -> Iterator[Problem]:
    if not limit.by:
        yield here, f"must name what is counted: {', '.join(SUBJECTS)} or {HEADER}NAME"
    names = [each.lower() for each in limit.by]
    for index, name in enumerate(limit.by):
        if names.index(name.lower()) != index:
            yield (*here, index), f"names {name} twice"
        elif name.startswith(HEADER):
            if not TOKEN.fullmatch(name.removeprefix(HEADER)):
                yield (*here, index), "is not a header's name"
        elif name not in SUBJECTS:
            yield (*here, index), f"cannot be counted; {nearest(name, (*SUBJECTS, HEADER))}"


def _cost(limit: Limit, here: Location) -> Iterator[Problem]:
    for name, cost in limit.cost.items():
        yield from route(name, (*here, name))
        if limit.routes and name not in limit.routes:
            yield (*here, name), "is not among the limit's routes"
        if cost > limit.limit:
            yield (*here, name), f"is more than the limit of {limit.limit}: none would ever pass"


def _overrides(
    policy: RateLimitPolicy, overrides: Mapping[str, LimitOverride], here: Location
) -> Iterator[Problem]:
    for name, override in overrides.items():
        limit = policy.limits.get(name)
        if limit is None:
            known = tuple(policy.limits)
            yield (
                (*here, name),
                f"unknown limit; {nearest(name, known) if known else 'there is none'}",
            )
            continue
        if "ip" in limit.by and not set(limit.by) & set(_IDENTITY):
            yield (*here, name), "is decided by the address, before the key is known"
        if override.window is not None:
            yield from _window(override.window, (*here, name, "window"))
        dearest = max(limit.cost.values(), default=1)
        if dearest > override.limit:
            yield (*here, name, "limit"), f"is less than the limit's cost of {dearest}"
