"""Who a request really comes from, behind trusted proxies (RFC 7239 section 8.1)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from multidict import CIMultiDict


class TrustedProxies:
    """Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.

    Raises `ValueError` for a text that is no address or CIDR range.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = tuple(ip_network(text, strict=False) for text in networks)

    def resolve(self, peer: str, scheme: str, headers: CIMultiDict[str]) -> tuple[str, str]:
        """The client's address and scheme.

        The list is read right to left: the last entry was added by the peer, and only while the one
        who added an entry is trusted does that entry count. Whatever is no address ends the walk.
        """
        if not self._trusts(peer):
            return peer, scheme
        client = peer
        for entry in reversed(",".join(headers.getall("X-Forwarded-For", ())).split(",")):
            address = _parse(entry)
            if address is None:
                break
            client = str(address)
            if not self._trusts(client):
                break
        said = ",".join(headers.getall("X-Forwarded-Proto", ())).rpartition(",")[2].strip().lower()
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
    headers["X-Forwarded-For"] = peer
    headers["X-Forwarded-Proto"] = scheme
    headers["X-Forwarded-Host"] = host
    headers.popall("Forwarded", None)
    headers.popall("X-Real-IP", None)


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
