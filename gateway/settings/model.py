"""The whole of `gateway.yaml`, typed: frozen, unknown keys refused; each section has its module."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.base import Model, PositiveSeconds
from gateway.settings.delivery import Convex, Webhooks
from gateway.settings.health import Health
from gateway.settings.job import JobContract
from gateway.settings.server import Server
from gateway.settings.store import Redis, Store
from gateway.settings.telemetry import Log, Metrics, Tracing
from gateway.settings.upstream import Upstream

MAX_WORKERS = 128


class Policies(Model):
    """Where the policy files are, and how often they are looked at without a notice of a change."""

    directory: str = "policies"
    poll: PositiveSeconds = 10.0


class Settings(Model):
    """The whole of `gateway.yaml`."""

    api_title: str = "KlipStream Analysis API"
    api_version: str = "2.0.0"
    debug: bool = False
    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    server: Server = Server()
    upstream: Upstream = Upstream()
    jobs: JobContract = JobContract()
    store: Store = Store()
    redis: Redis | None = None
    webhooks: Webhooks = Webhooks()
    convex: Convex = Convex()
    policies: Policies = Policies()
    metrics: Metrics = Metrics()
    health: Health = Health()
    log: Log = Log()
    tracing: Tracing = Tracing()
