"""Where deliveries may go: how a receiver's URL is written, and which addresses it may stand for.

A URL is judged when it is given and again at every attempt; the addresses that its name resolves to
are judged when a socket is made (`delivery/guard.py`), since a name can change its mind.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self
from urllib.parse import quote

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# `ipaddress.is_global` is not enough on Python 3.11: it takes multicast, 192.88.99.1, 2002::/16,
# 64:ff9b::/96 and more for global. The IANA special-purpose registries, and what clouds added.
DENIED_IPV4: Sequence[tuple[IPv4Network, str]] = tuple(
    (IPv4Network(network), use)
    for network, use in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("168.63.129.16/32", "cloud platform"),
    )
)
GLOBAL_IPV6 = IPv6Network("2000::/3")
DENIED_IPV6: Sequence[tuple[IPv6Network, str]] = tuple(
    (IPv6Network(network), use)
    for network, use in (
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
    )
)
# What hands credentials to whoever asks from inside a cloud. No allow-list opens these.
METADATA: frozenset[Address] = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # most clouds
        "169.254.170.2",  # AWS ECS task credentials
        "169.254.170.23",  # AWS EKS pod identity
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",  # Google Cloud over IPv6
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle Cloud
    )
)
METADATA_HOSTS = frozenset({"metadata.google.internal", "metadata.goog", "instance-data"})

MAX_URL_LENGTH = 2048
DEFAULT_PORTS = {"https": 443, "http": 80}
_LOOPBACK = IPv4Address("127.0.0.1")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)([^?]*)(\?.*)?", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(.*))?", re.DOTALL)
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# RFC 3986 section 2: reserved and unreserved characters, and escapes as they are.
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~-._"


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Which URLs an operator lets deliveries go to; `ports` None means any."""

    schemes: tuple[str, ...] = ("https",)
    ports: tuple[int, ...] | None = (443, 80, 8443)
    allow: tuple[Network, ...] = ()

    @classmethod
    def parse(
        cls,
        schemes: Iterable[str],
        ports: Iterable[int],
        *,
        any_port: bool = False,
        allow: Iterable[str] = (),
    ) -> Self:
        """The rule as settings write it. Raises ValueError naming a CIDR that is none."""
        networks = tuple(ip_network(text) for text in allow)
        return cls(tuple(schemes), None if any_port else tuple(ports), networks)


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """A URL that keeps the rule. `url` is what to send to: ASCII, its scheme and host lower-cased.

    `host` is a DNS name or an address without brackets; `target` is the path and query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def url(self) -> str:
        """The URL as text (RFC 3986), a default port left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS.get(self.scheme) else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


def check_url(url: str, rule: AddressRule) -> ParsedUrl:
    """The URL's parts, when it keeps `rule`.

    Raises ValueError whose text reads on from the field's name: `must use https, not ftp`. What
    parsers disagree on (backslashes, credentials, numbers that some resolvers take for addresses,
    digits of other scripts) is refused rather than interpreted.
    """
    _check_characters(url)
    found = _URL.fullmatch(url)
    if not found:
        raise ValueError("must be an absolute URL, like https://example.com/hook")
    scheme, authority, path, query = found[1].lower(), found[2], found[3], found[4] or ""
    if scheme not in rule.schemes:
        raise ValueError(f"must use {' or '.join(rule.schemes)}, not {scheme}")
    if "@" in authority:
        raise ValueError("must not carry a user name or password; sign with the secret instead")
    parts = _AUTHORITY.fullmatch(authority)
    if not parts:
        raise ValueError("must have a host and, after a colon, a port")
    port = _check_port(parts[2], scheme, rule)
    host = _check_host(parts[1], rule)
    target = quote(f"{path or '/'}{query}", safe=_URL_CHARACTERS)
    return ParsedUrl(scheme, host, port, target)


def check_address(address: Address | str, allow: Iterable[Network] = ()) -> str | None:
    """Why nothing may be sent to this address; None when it may. `allow` opens ranges.

    An IPv4-mapped IPv6 address is judged as the IPv4 address it stands for. Raises ValueError for
    text that is no address.
    """
    ip = _unmapped(ip_address(address))
    if ip in METADATA or any(inner in METADATA for inner in _embedded(ip)):
        return "is a cloud metadata service"
    if any(ip in network for network in allow):
        return None
    denied = DENIED_IPV4 if isinstance(ip, IPv4Address) else DENIED_IPV6
    for network, use in denied:
        if ip in network:
            return f"is in {network} ({use})"
    if isinstance(ip, IPv6Address) and ip not in GLOBAL_IPV6:
        return f"is outside {GLOBAL_IPV6}, the public IPv6 addresses"
    return None


def _check_characters(url: str) -> None:
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"must have at most {MAX_URL_LENGTH} characters")
    # Categories C (controls, format characters, surrogates, unassigned) and Z (separators).
    if any(unicodedata.category(character)[0] in "CZ" for character in url):
        raise ValueError("must not contain spaces or control characters")
    if "\\" in url:
        raise ValueError("must not contain a backslash")
    if "#" in url:
        raise ValueError("must not have a fragment (#…): it is never sent")


def _check_port(text: str | None, scheme: str, rule: AddressRule) -> int:
    if text is None:
        port = DEFAULT_PORTS.get(scheme, 0)
    elif _PORT.fullmatch(text) and int(text) <= 65535:
        port = int(text)
    else:
        raise ValueError("must have a port from 1 to 65535, or none")
    if rule.ports is not None and port not in rule.ports:
        allowed = ", ".join(str(each) for each in rule.ports)
        raise ValueError(f"must use one of the ports {allowed}, not {port}")
    return port


def _check_host(text: str, rule: AddressRule) -> str:
    if text.startswith("["):
        return str(_judged(_parse_ipv6(text[1:-1]), rule))
    if not text.isascii():
        raise ValueError("must write its host in ASCII; an international name in its xn-- form")
    host = text.lower()
    if not host:
        raise ValueError("must have a host")
    if host.endswith("."):
        raise ValueError("must write its host without a dot at the end")
    # WHATWG URL section 3.5: a host whose last label is a number is an IPv4 address, and resolvers
    # take 2130706433, 0x7f000001, 0177.0.0.1 and 127.1 for 127.0.0.1. One spelling is enough.
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return str(_judged(_parse_ipv4(host), rule))
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise ValueError("must have a DNS name or an address as its host")
    if host in METADATA_HOSTS:
        raise ValueError("must not name a cloud metadata service")
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 section 6.3
        _judged(_LOOPBACK, rule)
    return host


def _parse_ipv4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError("must write an IPv4 address as four decimal numbers") from None


def _parse_ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise ValueError("must not name a zone in an IPv6 address")
    try:
        return IPv6Address(text)
    except ValueError:
        raise ValueError("must have an IPv6 address between its brackets") from None


def _judged(ip: Address, rule: AddressRule) -> Address:
    reason = check_address(ip, rule.allow)
    if reason is not None:
        raise ValueError(f"must be a public address: {_unmapped(ip)} {reason}")
    return ip


def _unmapped(ip: Address) -> Address:
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return ip if mapped is None else mapped


def _embedded(ip: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that a translator or tunnel may make of an IPv6 address.

    The last 32 bits, which cover NAT64 under any /96 prefix (RFC 6052) and IPv4-compatible
    addresses (RFC 4291); 6to4 (RFC 3056); Teredo (RFC 4380).
    """
    if isinstance(ip, IPv4Address):
        return
    yield IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.sixtofour is not None:
        yield ip.sixtofour
    if ip.teredo is not None:
        yield from ip.teredo
