"""Typed policy files about browsers: who may read answers from another origin, what they carry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.settings.base import Mode, Model, Seconds


class CorsRoute(Model):
    """What a route has instead of the file's own figures; what is not said stays as it is there."""

    origins: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    headers: tuple[str, ...] | None = None
    expose: tuple[str, ...] | None = None
    credentials: bool | None = None
    max_age: Annotated[Seconds, Field(le=86_400)] | None = None


class CorsPolicy(Model):
    """`policies/cors.yaml`: the Fetch standard's CORS protocol, in place of the upstream's own.

    An origin is `scheme://host` with its port where it is not the scheme's own, or `*` for any;
    without origins no foreign page may read an answer. `routes` override by a route's name.
    """

    enabled: bool = True
    mode: Mode = "enforce"
    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    headers: tuple[str, ...] = (
        "Accept",
        "Authorization",
        "Cache-Control",
        "Content-Type",
        "Idempotency-Key",
        "Last-Event-ID",
        "X-API-Key",
        "X-Request-ID",
    )
    expose: tuple[str, ...] = (
        "Cache-Status",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "X-Request-ID",
    )
    credentials: bool = False
    max_age: Annotated[Seconds, Field(le=86_400)] = 600.0
    routes: dict[str, CorsRoute] = {}

    def at(self, route: str) -> CorsPolicy:
        """The policy as it is on one route."""
        given = self.routes.get(route)
        if given is None:
            return self
        return self.model_copy(update=given.model_dump(exclude_none=True))


class HeaderOverride(Model):
    """Other headers on the paths of a template (`/docs`, `/docs/*`); null is not sent there."""

    path: str
    headers: dict[str, str | None]


class SecurityHeaderPolicy(Model):
    """`policies/security_headers.yaml`; a header set to null is not sent.

    The first of `overrides` whose path fits comes over `headers`.
    """

    enabled: bool = True
    mode: Mode = "enforce"
    headers: dict[str, str | None] = {}
    overrides: tuple[HeaderOverride, ...] = ()
