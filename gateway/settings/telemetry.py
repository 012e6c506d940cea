"""What the process tells of itself: `log`, `metrics` and `tracing` of `gateway.yaml`."""

from __future__ import annotations

from typing import Literal

from gateway.settings.base import Model


class Metrics(Model):
    """Prometheus series on the admin listener."""

    enabled: bool = True


class Log(Model):
    """Structured logs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
