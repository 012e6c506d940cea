"""What the process tells of itself: `log`, `metrics` and `tracing` of `gateway.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from gateway.settings.base import Model, PositiveSeconds


class Metrics(Model):
    """Prometheus series on the admin listener."""

    enabled: bool = True


class Log(Model):
    """Structured logs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Tracing(Model):
    """Spans of requests and deliveries, sent to an OpenTelemetry collector; needs the extra `otel`.

    `endpoint` is the base URL of its OTLP/HTTP receiver; without one nothing is traced.
    `sample_ratio` is the share of traces begun here that are sampled: a client that begins one has
    decided. `resource` are further attributes of this service. `queue` bounds the spans that wait.
    """

    endpoint: str | None = None
    headers: dict[str, SecretStr] = {}
    ca: str | None = None
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    service_name: str = Field(default="klipstream-gateway", min_length=1)
    resource: dict[str, str] = {}
    queue: int = Field(default=4096, ge=1)
    batch: int = Field(default=256, ge=1)
    interval: PositiveSeconds = 1.0
    timeout: PositiveSeconds = 10.0
