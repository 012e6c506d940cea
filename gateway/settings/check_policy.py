"""Rules of the policy files that need more than one value, or a list of what there is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import datetime

from gateway.core.contract import CANCEL, CREATE, DETAILS, LIST, STATUS, STREAM
from gateway.core.job import State
from gateway.core.route import OTHER
from gateway.settings.check import methods, networks
from gateway.settings.contract import EVENTS, HEALTH, HISTORY, TICKET, UPSTREAM_ADMIN, WEBHOOKS
from gateway.settings.policy import AuthPolicy, CachePolicy
from gateway.settings.problem import Problem, nearest
from gateway.settings.yaml import Location

ROUTES = (
    *(CREATE, STATUS, DETAILS, STREAM, LIST, CANCEL),
    *(WEBHOOKS, HEALTH, HISTORY, EVENTS, TICKET, UPSTREAM_ADMIN),
    OTHER.name,
)
SCOPES = ("admin", "jobs:read", "jobs:write", "webhooks", "webhooks:all")

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


def check_auth(auth: AuthPolicy) -> Iterator[Problem]:
    """The rules that `policies/auth.yaml` breaks."""
    if not TOKEN.fullmatch(auth.keys.header):
        yield ("keys", "header"), "is not a header's name"
    for index, public in enumerate(auth.public):
        if not public.path.startswith("/"):
            yield ("public", index, "path"), "must begin with /"
        yield from methods(public.methods, ("public", index, "methods"))
    for name in auth.scopes:
        yield from route(name, ("scopes", name))
    if len(set(auth.keys.source)) != len(auth.keys.source) or not auth.keys.source:
        yield ("keys", "source"), "must name file, store or both, each once"
    yield from _entries(auth)
    yield from _scopes(auth)


def check_cache(policy: CachePolicy) -> Iterator[Problem]:
    """The rules that `policies/cache.yaml` breaks."""
    known = [state.value for state in State]
    for state in policy.ttl_by_state:
        if state not in known:
            yield ("ttl_by_state", state), f"unknown state; {nearest(state, known)}"
    for index, name in enumerate(policy.public):
        yield from route(name, ("public", index))
    if policy.max_entry > policy.max_bytes:
        yield ("max_entry",), "is more than max_bytes: nothing that large could be kept"
    for index, name in enumerate(policy.http.targets):
        if not TOKEN.fullmatch(name):
            yield ("http", "targets", index), "is not a header's name"


def _entries(auth: AuthPolicy) -> Iterator[Problem]:
    ids: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for index, entry in enumerate(auth.entries):
        here = ("entries", index)
        if ids.setdefault(entry.id, index) != index:
            yield (*here, "id"), f"{entry.id!r} is the id of entry {ids[entry.id]} already"
        digest = entry.hash.removeprefix("sha256:")
        if hashes.setdefault(digest, index) != index:
            yield (*here, "hash"), f"is the same key as entry {hashes[digest]}"
        if entry.expires is not None and not _is_rfc3339(entry.expires):
            yield (*here, "expires"), "must be a time with its zone, like 2027-01-31T00:00:00Z"
        yield from networks(entry.networks, (*here, "networks"))


def _scopes(auth: AuthPolicy) -> Iterator[Problem]:
    """A scope that nobody grants or that nothing asks for is a misspelt one."""
    granted = {scope for entry in auth.entries for scope in entry.scopes}
    for index, entry in enumerate(auth.entries):
        for position, scope in enumerate(entry.scopes):
            location = ("entries", index, "scopes", position)
            yield from _scope(scope, known_scopes(auth), location)
    for name, scopes in auth.scopes.items():
        for position, scope in enumerate(scopes):
            yield from _scope(scope, {*SCOPES, *granted}, ("scopes", name, position))


def known_scopes(auth: AuthPolicy) -> frozenset[str]:
    """Every scope that a key may be given: the gateway's own, and those that routes ask for."""
    return frozenset({*SCOPES, *(scope for scopes in auth.scopes.values() for scope in scopes)})


def _scope(name: str, known: Collection[str], location: Location) -> Iterator[Problem]:
    if name not in known:
        yield location, f"unknown scope; {nearest(name, known)}"


def route(name: str, location: Location) -> Iterator[Problem]:
    """The problem of a name that is no route's."""
    if name not in ROUTES:
        yield location, f"unknown route; {nearest(name, ROUTES)}"


def _is_rfc3339(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
