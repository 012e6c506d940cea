"""Rules of the section `redis`, and of what relies on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.settings.model import Settings
from gateway.settings.problem import Problem
from gateway.settings.store import Redis

_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,40}")
_NAMELESS = (
    "is required beside store.kind redis: a name that this replica's upstream keeps over restarts, "
    "such as ${HOSTNAME}; or set upstream.shared: true, if all replicas have the same upstream"
)
_NODE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


def redis(settings: Settings) -> Iterator[Problem]:
    """Every rule that the section breaks; its `url` is never shown, for it may hold a password."""
    if settings.store.kind == "redis":
        if settings.redis is None:
            yield ("store", "kind"), "redis needs the section redis: say its url"
        if settings.upstream.instance is None and not settings.upstream.shared:
            yield ("upstream", "instance"), _NAMELESS
    if settings.redis is None:
        if settings.store.keys == "redis":
            yield ("store", "keys"), "redis needs the section redis: say its url"
        return
    yield from _url(settings.redis)
    if not _NAMESPACE.fullmatch(settings.redis.namespace):
        yield ("redis", "namespace"), "must be 1 to 40 of letters, digits, dot, dash, underscore"
    if settings.redis.nodes and not settings.redis.cluster:
        yield ("redis", "nodes"), "are asked for a cluster's slots alone: set redis.cluster"
    for index, node in enumerate(settings.redis.nodes):
        if not _NODE.fullmatch(node):
            yield ("redis", "nodes", index), "must be host:port"


def _url(settings: Redis) -> Iterator[Problem]:
    here = ("redis", "url")
    try:
        url = urlsplit(settings.url.get_secret_value())
        usable = url.scheme in ("redis", "rediss") and url.hostname and url.port != 0
        database = url.path.strip("/") or "0"
    except ValueError:
        yield here, "must be a URL like redis://127.0.0.1:6379/0"
        return
    if not usable or url.query or url.fragment or not re.fullmatch(r"[0-9]{1,4}", database):
        yield here, "must be a URL like redis://127.0.0.1:6379/0, or rediss:// over TLS"
    elif settings.cluster and database != "0":
        yield here, "must name database 0: a cluster has no other"
    elif url.username and url.password is None:
        yield here, "must give the user's password too, as redis://user:password@host:6379"
    if settings.ca_file is not None and url.scheme == "redis":
        yield ("redis", "ca_file"), "is for TLS: the url begins with rediss://"
