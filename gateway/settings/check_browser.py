"""Rules of `policies/cors.yaml` and `policies/security_headers.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from gateway.settings.check import methods
from gateway.settings.check_policy import TOKEN, route
from gateway.settings.policy_browser import CorsPolicy, CorsRoute, SecurityHeaderPolicy
from gateway.settings.problem import Problem
from gateway.settings.yaml import Location

_VALUE = re.compile(r"[\x20-\x7e\t]*")
# RFC 6454 section 6.2: as browsers send it, so that it can be compared as text.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_ANY = "*"
_REDUNDANT = {"http": ":80", "https": ":443"}


def check_cors(policy: CorsPolicy) -> Iterator[Problem]:
    """The rules that `policies/cors.yaml` breaks."""
    yield from _cors(policy, policy, ())
    for name, entry in policy.routes.items():
        yield from route(name, ("routes", name))
        yield from _cors(entry, policy.at(name), ("routes", name))


def check_security_headers(policy: SecurityHeaderPolicy) -> Iterator[Problem]:
    """The rules that `policies/security_headers.yaml` breaks."""
    yield from _headers(policy.headers, ("headers",))
    for index, override in enumerate(policy.overrides):
        here = ("overrides", index)
        if not override.path.startswith("/"):
            yield (*here, "path"), "must begin with /"
        yield from _headers(override.headers, (*here, "headers"))


def _headers(headers: Mapping[str, str | None], here: Location) -> Iterator[Problem]:
    for name, value in headers.items():
        if not TOKEN.fullmatch(name):
            yield (*here, name), "is not a header's name"
        if value is not None and not _VALUE.fullmatch(value):
            yield (*here, name), "must be one line of visible ASCII"


def _cors(given: CorsPolicy | CorsRoute, whole: CorsPolicy, here: Location) -> Iterator[Problem]:
    """What is wrong with what stands at one place; `whole` is what then holds there."""
    for index, origin in enumerate(given.origins or ()):
        if problem := _origin(origin):
            yield (*here, "origins", index), problem
    if whole.credentials and _ANY in whole.origins and (given.credentials or given.origins):
        yield (
            (*here, "credentials" if given.credentials else "origins"),
            "any origin (*) with credentials lets every page act as its reader; name origins",
        )
    yield from methods(given.methods or (), (*here, "methods"))
    yield from _names(given.headers or (), (*here, "headers"), any_too=True)
    yield from _names(given.expose or (), (*here, "expose"), any_too=False)


def _origin(text: str) -> str | None:
    if text == _ANY:
        return None
    if text == "null":
        return "null names nobody: every sandboxed page has it"
    if _ANY in text:
        return "must be whole: an origin is compared as text, never by a pattern"
    if not _ORIGIN.fullmatch(text):
        return "must be an origin as browsers send it, like https://app.example.com, without a path"
    scheme = text.partition("://")[0]
    if text.endswith(_REDUNDANT.get(scheme, " ")):
        return f"browsers leave out {_REDUNDANT[scheme]} of {scheme}; leave it out too"
    return None


def _names(names: Sequence[str], here: Location, *, any_too: bool) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name == _ANY and not any_too:
            yield (*here, index), "must be named one by one"
        elif name != _ANY and not TOKEN.fullmatch(name):
            yield (*here, index), "is not a header's name"
