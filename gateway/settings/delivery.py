"""Who is told of changes: `webhooks` and `convex` of `gateway.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from gateway.settings.base import Model, Port, PositiveSeconds, Seconds


class WebhookAddresses(Model):
    """Where webhooks may go. `allow` opens private ranges by CIDR, never metadata addresses."""

    schemes: tuple[Literal["https", "http"], ...] = ("https",)
    ports: tuple[Port, ...] = (443, 80, 8443)
    any_port: bool = False
    allow: tuple[str, ...] = ()


class Webhooks(Model):
    """Delivery of events to receivers."""

    secret_key: SecretStr | None = None
    timeout: Annotated[PositiveSeconds, Field(le=30)] = 15.0
    max_timeout: Annotated[PositiveSeconds, Field(le=30)] = 30.0
    lease_margin: Annotated[PositiveSeconds, Field(ge=6)] = 15.0
    max_retries: int = Field(default=3, ge=0, le=10)
    retry_delays: tuple[Seconds, ...] = (0.5, 2, 30, 300, 1800, 7200, 18000, 36000, 36000)
    concurrency: int = Field(default=64, ge=1)
    per_endpoint: int = Field(default=4, ge=1)
    max_per_owner: int = Field(default=100, ge=1)
    addresses: WebhookAddresses = WebhookAddresses()
    disable_after: PositiveSeconds = 120 * 3600.0
    disable_exhausted: int = Field(default=5, ge=1)
    payload_retention: Seconds = 7 * 86400.0
    attempt_retention: Seconds = 30 * 86400.0
    audit_retention: Annotated[PositiveSeconds, Field(ge=86400)] = 365 * 86400.0


class ConvexFunctions(Model):
    """Paths of the deployed functions; null leaves that one uncalled."""

    update_progress: str | None = "jobs:updateProgress"
    track_analytics: str | None = "jobs:trackAnalytics"
    store_webhook_config: str | None = "webhooks:storeConfig"
    history: str | None = "jobs:history"
    update_status: str | None = None
    update_urls: str | None = None


class Convex(Model):
    """The Convex deployment; without a `url` nothing is written."""

    url: str | None = None
    deploy_key: SecretStr | None = None
    functions: ConvexFunctions = ConvexFunctions()
    timeout: PositiveSeconds = 10.0
    concurrency: int = Field(default=16, ge=1)
    retry_delays: tuple[Seconds, ...] = (0.5, 1, 2, 5, 10, 30, 60, 300)
