"""What is checked in the background: `health` of `gateway.yaml`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.settings.base import Model, PositiveSeconds, Size


class Dependency(Model):
    """A further HTTP service whose health is shown (Deepgram, GCS)."""

    url: str
    timeout: PositiveSeconds = 5.0
    expect: tuple[int, ...] = ()
    critical: bool = False


ComponentName = Literal[
    "upstream",
    "sqlite",
    "convex",
    "redis",
    "memory",
    "cpu",
    "event_loop",
    "jobs",
    "webhooks",
    "policies",
    "openapi",
    "log",
    "tracing",
]


class Health(Model):
    """Background checks; a probe only reads what they last found.

    Without a component of `critical` the gateway is unhealthy, without any other degraded; the
    store of jobs is always critical. A component that answers later than `slow` is degraded too.
    """

    interval: PositiveSeconds = 60.0
    timeout: PositiveSeconds = 5.0
    slow: PositiveSeconds = 2.0
    critical: tuple[ComponentName, ...] = ()
    dependencies: dict[str, Dependency] = {}
    max_memory: Size = 1024**3
    max_cpu: float = Field(default=0.9, gt=0, le=1)
    max_loop_lag: PositiveSeconds = 0.5
    min_disk: Size = 64 * 1024**2
    min_delivered: float = Field(default=0.5, ge=0, le=1)
