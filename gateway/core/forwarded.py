"""Who a request really comes from, behind trusted proxies (RFC 7239 section 8.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from multidict import CIMultiDict, istr

_FOR, _PROTO = istr("X-Forwarded-For"), istr("X-Forwarded-Proto")
_HOST, _FORWARDED, _REAL_IP = istr("X-Forwarded-Host"), istr("Forwarded"), istr("X-Real-IP")
_PAIR = re.compile(r'([A-Za-z]+)=(?:([^\s;,="]+)|"([^"]*)")')


class TrustedProxies:
    """Networks whose word on who asked is believed.

    `field` says where they give it: `x-forwarded` (`X-Forwarded-For`, `X-Forwarded-Proto`) or
    `forwarded` (RFC 7239). Only the one is read: the other may be the client's own, passed on.
    Raises `ValueError` for a text that is no address or CIDR range.
    """

    def __init__(self, networks: Sequence[str], field: str = "x-forwarded") -> None:
        self._networks = tuple(ip_network(text, strict=False) for text in networks)
        self._told = _rfc7239 if field == "forwarded" else _x_forwarded

    def resolve(self, peer: str, scheme: str, headers: CIMultiDict[str]) -> tuple[str, str]:
        """The client's address and scheme.

        The list is read right to left: the last entry was added by the peer, and only while the one
        who added an entry is trusted does that entry count. Whatever is no address ends the walk.
        """
        if not self._networks or not self._trusts(peer):
            return peer, scheme
        entries, said = self._told(headers)
        client = peer
        for entry in reversed(entries):
            address = _parse(entry)
            if address is None:
                break
            client = str(address)
            if not self._trusts(client):
                break
        said = said.strip().lower()
        return client, said if said in ("http", "https") else scheme

    def _trusts(self, text: str) -> bool:
        address = _parse(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )


def forward(headers: CIMultiDict[str], *, peer: str, scheme: str, host: str) -> None:
    """Set `X-Forwarded-*` for the upstream; `peer` is the client as the gateway judged it.

    What an untrusted peer sent under these names is replaced, not extended.
    """
    headers[_FOR] = peer
    headers[_PROTO] = scheme
    headers[_HOST] = host
    headers[_FORWARDED] = _element(peer, scheme, host)
    headers.popall(_REAL_IP, None)


@lru_cache(maxsize=4096)
def _element(peer: str, scheme: str, host: str) -> str:
    """One element of `Forwarded` (RFC 7239 sections 4 and 6); what is no address is `unknown`."""
    address = _parse(peer)
    node = "unknown" if address is None else str(address) if "." in peer else f'"[{address}]"'
    quoted = host.replace("\\", "").replace('"', "")
    return f'for={node};host="{quoted}";proto={scheme}'


def _x_forwarded(headers: CIMultiDict[str]) -> tuple[list[str], str]:
    """Every address of the list, and the scheme as the nearest proxy saw it."""
    entries = ",".join(headers.getall(_FOR, ())).split(",")
    return entries, ",".join(headers.getall(_PROTO, ())).rpartition(",")[2]


def _rfc7239(headers: CIMultiDict[str]) -> tuple[list[str], str]:
    """The same of `Forwarded`. An element without `for` is no address: it ends the walk."""
    elements = [
        {name.lower(): token or quoted for name, token, quoted in _PAIR.findall(element)}
        for element in ",".join(headers.getall(_FORWARDED, ())).split(",")
    ]
    return [each.get("for", "") for each in elements], elements[-1].get("proto", "")


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
