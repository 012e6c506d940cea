"""The job API behind the gateway: `upstream` of `gateway.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.settings.base import Model, PositiveSeconds


class AdminRoute(Model):
    """A route of the upstream's own administration; `/*` at the end takes everything below."""

    path: str
    methods: tuple[str, ...] = ("POST", "PUT", "PATCH", "DELETE")


class UpstreamTls(Model):
    """How an https upstream is verified: it always is."""

    ca: str | None = None
    server_name: str | None = None


class UpstreamRetry(Model):
    """How many requests may be sent a second time: a share of them, and some each second."""

    share: float = Field(default=0.2, ge=0, le=1)
    per_second: float = Field(default=3.0, ge=0)


class UpstreamBreaker(Model):
    """When the upstream is left alone: after so many failures in a row (0: never), so long."""

    failures: int = Field(default=20, ge=0)
    open: PositiveSeconds = 2.0


class Upstream(Model):
    """The job API behind the gateway.

    Requests to `admin` routes need the scope `admin`. `framing: tolerant` takes what RFC 9112 lets
    a client take: a body that goes on beyond its length ends there, one in a coding that nobody
    registered ends with its connection.
    """

    url: str = "http://127.0.0.1:3001"
    instance: str | None = None
    shared: bool = False
    connect_timeout: PositiveSeconds = 2.0
    response_timeout: PositiveSeconds = 60.0
    idle_timeout: PositiveSeconds = 300.0
    total_timeout: PositiveSeconds = 3600.0
    keepalive: PositiveSeconds = 4.0
    max_connections: int = Field(default=512, ge=1)
    max_waiting: int = Field(default=1024, ge=0)
    queue_timeout: PositiveSeconds = 5.0
    max_streams: int = Field(default=10_000, ge=0)
    framing: Literal["strict", "tolerant"] = "strict"
    retry: UpstreamRetry = UpstreamRetry()
    breaker: UpstreamBreaker = UpstreamBreaker()
    tls: UpstreamTls = UpstreamTls()
    health_path: str = "/health"
    admin: tuple[AdminRoute, ...] = (
        AdminRoute(path="/api/v1/queue/pause"),
        AdminRoute(path="/api/v1/queue/resume"),
        AdminRoute(path="/api/v1/queue/drain"),
        AdminRoute(path="/api/v1/monitoring/*"),
    )
