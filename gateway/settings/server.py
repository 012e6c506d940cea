"""The listeners, and what they accept: `server` of `gateway.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.settings.base import Model, Port, PositiveSeconds, Seconds, Size


class Listener(Model):
    """An address to listen on; port 0 takes a free one."""

    host: str = "0.0.0.0"  # noqa: S104 - a sidecar's public port is meant to be reached
    port: Port = 8080


class AdminListener(Listener):
    """Where orchestrators and operators ask."""

    port: Port = 9901


class ServerTls(Model):
    """PEM files of the public listener; renewed ones are taken up without a restart."""

    certificate: str
    key: str


class Server(Model):
    """Listeners and what they accept.

    `socket` is the path of a Unix socket on which the API is served as well. `reuse_port` lets
    several processes listen on the public port at once. `forwarded` says in which fields trusted
    proxies tell who asked. `hosts` are the names the public listener answers for, `*.example.com`
    for every name below; none means any. `further_methods` pass beside the usual ones.
    `max_header` bounds a request's whole head. `body_timeout` is the longest wait for the next KiB
    of a body, `write_timeout` for a client that does not read.
    """

    public: Listener = Listener()
    admin: AdminListener = AdminListener()
    tls: ServerTls | None = None
    socket: str | None = None
    reuse_port: bool = False
    trusted_proxies: tuple[str, ...] = ()
    forwarded: Literal["x-forwarded", "forwarded"] = "x-forwarded"
    hosts: tuple[str, ...] = ()
    further_methods: tuple[str, ...] = ()
    max_header: Size = 32 * 1024
    max_body: Size = 1024**2
    max_connections: int = Field(default=20_000, ge=1)
    header_timeout: PositiveSeconds = 10.0
    body_timeout: PositiveSeconds = 30.0
    write_timeout: PositiveSeconds = 30.0
    keepalive_timeout: PositiveSeconds = 75.0
    drain_delay: Seconds = 1.0
    drain_timeout: PositiveSeconds = 25.0
    public_health: bool = True
    public_metrics: bool = False
