"""What policy files name that the gateway as it is set can never meet."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.core.credential import ADMIN
from gateway.core.route import OTHER
from gateway.settings.contract import compile_contract, route_table
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.settings.yaml import Location

# The file, where in it, and what is said.
Reach = tuple[str, Location, str]


def unmet_scopes(policies: PolicySet) -> Iterator[Reach]:
    """The scopes that routes want and no key has: nobody is ever let in there.

    Only where the file holds all the keys there are: those of the store are not known here.
    """
    auth = policies.auth
    if not auth.enabled or auth.keys.source != ("file",):
        return
    granted = {scope for entry in auth.entries for scope in entry.scopes}
    for route, scopes in auth.scopes.items():
        if scopes and ADMIN not in granted and not granted & set(scopes):
            yield (
                "auth",
                ("scopes", route),
                f"no key has {' or '.join(scopes)}, and all keys are in this file",
            )


def unmet_routes(settings: Settings, policies: PolicySet) -> Iterator[Reach]:
    """The routes that policies name and the settings do not have."""
    table = route_table(settings, compile_contract(settings.jobs))
    known = {OTHER.name, *(route.name for route in table.routes)}
    for file, location, name in _named(policies):
        if name not in known:
            yield file, location, f"gateway.yaml has no route {name}: this never applies"


def _named(policies: PolicySet) -> Iterator[Reach]:
    for name, limit in policies.rate_limits.limits.items():
        for index, route in enumerate(limit.routes):
            yield "rate_limits", ("limits", name, "routes", index), route
    for index, route in enumerate(policies.cache.public):
        yield "cache", ("public", index), route
    for route in policies.auth.scopes:
        yield "auth", ("scopes", route), route
    for route in policies.cors.routes:
        yield "cors", ("routes", route), route
    for route in policies.validation.routes:
        yield "validation", ("routes", route), route
