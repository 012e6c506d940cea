"""Where what must be kept is: `store` and `redis` of `gateway.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from gateway.settings.base import Model, PositiveSeconds, Size


class Sqlite(Model):
    """The embedded store; an operation waits for the disk no longer than `timeout`."""

    path: str = "var/gateway.db"
    timeout: PositiveSeconds = 5.0


class Redis(Model):
    """A Redis or Valkey server, or a Cluster, that many replicas share.

    `url` is `redis://user:password@host:6379/0`, or `rediss://` over TLS.
    """

    url: SecretStr
    cluster: bool = False
    nodes: tuple[str, ...] = ()
    namespace: str = "gw"
    ca_file: str | None = None
    timeout: PositiveSeconds = 2.0
    connect_timeout: PositiveSeconds = 1.0
    limit_timeout: PositiveSeconds = 0.05
    cache_timeout: PositiveSeconds = 0.05
    cache_max_bytes: Size = 256 * 1024**2


class Store(Model):
    """Where jobs, webhooks and the outbox live; `redis` means the server of the section `redis`.

    `keys` says where API keys and idempotency keys do, if it is not the same.
    """

    kind: Literal["sqlite", "redis"] = "sqlite"
    keys: Literal["sqlite", "redis"] | None = None
    sqlite: Sqlite = Sqlite()
