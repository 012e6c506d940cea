"""Who a limit counts for: the parts that `by` names, as one key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from gateway.core.message import Request

Subject = Callable[[Request], str]
HEADER = "header:"
# Parts that are known only once the key is; a limit by one of them is decided after it.
IDENTITY = frozenset({"key", "owner", "scope"})


def subject(by: Sequence[str]) -> Subject:
    """The function that names who a request counts for.

    Without a key, `key` and `owner` mean the address; so does a header that is not there, where it
    stands alone: what cannot be told apart must not share one quota with the whole world. Of a
    header's value only a digest is kept: it may be long, or a secret.
    """
    parts = tuple(_part(each, alone=len(by) == 1) for each in by)
    if len(parts) == 1:
        return parts[0]

    def product(request: Request) -> str:
        # Without a key, `ip` and `key` are the same part.
        return "|".join(dict.fromkeys(part(request) for part in parts))

    return product


def fields_of(by: Sequence[str]) -> frozenset[str]:
    """The fields of the request, lower-cased, that a subject is made of."""
    return frozenset(each.removeprefix(HEADER).lower() for each in by if each.startswith(HEADER))


def by_address(request: Request) -> str:
    """The address, as limits count it."""
    return "ip:" + address_subject(request.client)


@lru_cache(maxsize=4096)
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


def _part(name: str, *, alone: bool) -> Subject:
    if name.startswith(HEADER):
        return _by_header(name.removeprefix(HEADER), alone=alone)
    return _PARTS[name]


def _by_key(request: Request) -> str:
    principal = request.principal
    return by_address(request) if principal is None else "key:" + principal.lineage


def _by_owner(request: Request) -> str:
    principal = request.principal
    return by_address(request) if principal is None else "owner:" + principal.owner


def _by_route(request: Request) -> str:
    return "route:" + request.match.name


def _by_scope(request: Request) -> str:
    return "scope:" + request.scope


def _by_header(name: str, *, alone: bool) -> Subject:
    prefix = f"{HEADER}{name.lower()}:"

    def part(request: Request) -> str:
        values = request.headers.getall(name, ())
        if not values and alone:
            return by_address(request)
        text = ", ".join(values).encode("utf-8", "surrogateescape")
        return prefix + hashlib.blake2b(text, digest_size=12).hexdigest()

    return part


_PARTS: dict[str, Subject] = {
    "ip": by_address,
    "key": _by_key,
    "owner": _by_owner,
    "route": _by_route,
    "scope": _by_scope,
}
