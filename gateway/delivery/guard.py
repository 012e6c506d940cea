"""Connects only to allowed addresses: each is judged when its socket is made.

That is after the name was resolved and before a packet is sent, so a name that answers differently
the second time (DNS rebinding) gains nothing; and literal addresses come by here too, which they do
not in a custom resolver.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import aiohttp
from aiohttp.connector import AddrInfoType

from gateway.core.address import AddressRule, check_address
from gateway.settings.delivery import WebhookAddresses

DNS_CACHE_SECONDS = 10
KEEPALIVE_SECONDS = 4.0  # less than receivers usually keep one: Node's default is 5


class BlockedAddress(OSError):
    """The address must not be connected to; raised before any packet is sent."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(errno.EACCES, f"{address} {reason}")
        self.address = address
        self.reason = reason


@dataclass(slots=True)
class Judgement:
    """What became of the addresses that one attempt wanted to connect to."""

    allowed: set[str] = field(default_factory=set)
    blocked: dict[str, str] = field(default_factory=dict)

    @property
    def is_blocked(self) -> bool:
        """True when addresses were refused and none was left to try."""
        return bool(self.blocked) and not self.allowed

    @property
    def detail(self) -> str:
        """The refused addresses and why."""
        return "; ".join(f"{address} {reason}" for address, reason in self.blocked.items())


# Errors of several addresses are merged into one on their way out of the connector, and which of
# them survives depends on their order. What is noted here, as each socket is made, does not.
_judgement: ContextVar[Judgement | None] = ContextVar("judgement", default=None)


@contextmanager
def judging() -> Iterator[Judgement]:
    """Note what becomes of every address that the block's requests want to connect to."""
    judgement = Judgement()
    token = _judgement.set(judgement)
    try:
        yield judgement
    finally:
        _judgement.reset(token)


def address_rule(addresses: WebhookAddresses) -> AddressRule:
    """The rule that the settings describe. Raises ValueError naming a CIDR that is none."""
    return AddressRule.parse(
        addresses.schemes, addresses.ports, any_port=addresses.any_port, allow=addresses.allow
    )


def guarded_connector(
    rule: AddressRule,
    *,
    tls: ssl.SSLContext | None = None,
    resolver: aiohttp.abc.AbstractResolver | None = None,
) -> aiohttp.TCPConnector:
    """A pool whose every new connection is to an allowed address; made within the running loop.

    `tls` None means the system's certificates; `resolver` None the system's names. The pool itself
    has no limit: the dispatcher bounds what is in flight.
    """
    return aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=KEEPALIVE_SECONDS,
        ssl=True if tls is None else tls,
        resolver=resolver,
        ttl_dns_cache=DNS_CACHE_SECONDS,
        socket_factory=lambda info: make_socket(rule, info),
    )


def make_socket(rule: AddressRule, info: AddrInfoType) -> socket.socket:
    """A socket for a resolved address (an entry of `getaddrinfo`). Raises BlockedAddress."""
    family, kind, protocol, _, target = info
    address = str(target[0]).partition("%")[0]  # an IPv6 zone says where, not whether
    reason = check_address(address, rule.allow)
    judgement = _judgement.get()
    if reason is not None:
        if judgement is not None:
            judgement.blocked[address] = reason
        raise BlockedAddress(address, reason)
    if judgement is not None:
        judgement.allowed.add(address)
    return socket.socket(family, kind, protocol)
