"""Where the server is and how it is greeted: what `redis.url` says."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gateway.core.error import SettingsError
from gateway.settings.store import Redis
from gateway.store.redis.connection import Part

DEFAULT_PORT = 6379

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`addresses` are tried in order; the greeting holds the password, and is never shown."""

    addresses: tuple[Address, ...]
    greeting: Sequence[Sequence[Part]]
    tls: ssl.SSLContext | None

    @property
    def name(self) -> str:
        """The first address, for messages."""
        return written(self.addresses[0])


def endpoint_of(settings: Redis) -> Endpoint:
    """The endpoint of these settings, which have been checked.

    Raises SettingsError for a `ca_file` that cannot be used.
    """
    url = urlsplit(settings.url.get_secret_value())
    first = (url.hostname or "127.0.0.1", url.port or DEFAULT_PORT)
    greeting: list[Sequence[Part]] = []
    if url.password is not None:
        name = (unquote(url.username),) if url.username else ()
        greeting.append(("AUTH", *name, unquote(url.password)))
    database = url.path.strip("/") or "0"
    if database != "0":
        greeting.append(("SELECT", database))
    tls = None
    if url.scheme == "rediss":
        tls = _tls(settings.ca_file)
    return Endpoint((first, *map(parse_address, settings.nodes)), tuple(greeting), tls)


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError([f"redis.ca_file: {ca_file} cannot be used: {error}"]) from error


def parse_address(text: str) -> Address:
    """`host:port`, where a host with colons stands in brackets. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.username is not None or parts.path or parts.query:
        raise ValueError("must be host:port")
    return parts.hostname, parts.port or DEFAULT_PORT


def written(address: Address) -> str:
    """`host:port`, as `parse_address` reads it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
