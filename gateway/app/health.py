"""What health is made of: one component a dependency, and the process itself."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import ClientSession

from gateway.app.behind import Behind
from gateway.app.store import Stores
from gateway.delivery.dead_letter import DeadLetters
from gateway.policy.openapi_source import OpenApiSource
from gateway.settings.health import ComponentName
from gateway.settings.model import Settings
from gateway.telemetry.export import Exporter
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import UpstreamClient
from gateway.web import health_check
from gateway.web.convex_health import check_convex
from gateway.web.health import Check, Component, Health
from gateway.web.tracing_health import check_tracing


def build_health(  # noqa: PLR0913 - collaborators, each by its name
    settings: Settings,
    *,
    stores: Stores,
    behind: Behind,
    client: UpstreamClient,
    lag: health_check.LoopLag,
    policies: Check,
    openapi: OpenApiSource,
    tracing: Exporter | None,
    session: ClientSession,
    log_lines: health_check.LogLines,
    metrics: Metrics,
    now: Callable[[], float],
) -> Health:
    """Every component of `/health`; `session` asks the HTTP dependencies of the settings."""
    convex: Check = health_check.absent()
    if (sink := behind.convex_sink) is not None:
        letters = DeadLetters(stores.outbox, now, behind.wake)
        convex = check_convex(lambda: sink.last_error, letters, now)
    sqlite: Check = health_check.absent()
    limits = settings.health
    if stores.uses_file:
        sqlite = health_check.file(stores.probe_file, limits.min_disk)
    redis: Check = health_check.absent()
    if stores.redis is not None:
        redis = health_check.reads(stores.redis.ping)
    delivery = health_check.Delivery(
        "webhook", stores.outbox.backlog, metrics, now, limits.min_delivered
    )
    checks: dict[ComponentName, Check] = {
        "upstream": health_check.upstream(client, settings),
        "sqlite": sqlite,
        "convex": convex,
        "redis": redis,
        "memory": health_check.memory(limits.max_memory),
        "cpu": health_check.cpu(limits.max_cpu),
        "event_loop": lag.check,
        "jobs": health_check.queue(lambda: behind.tracker.active_jobs, now),
        "webhooks": delivery.check,
        "policies": policies,
        "openapi": health_check.openapi(lambda: openapi.state),
        "log": log_lines.check,
        "tracing": health_check.absent() if tracing is None else check_tracing(tracing),
    }
    # Without the store of jobs and messages nothing can be promised, whatever the settings say.
    critical = {*limits.critical, "sqlite" if stores.replica is None else "redis"}
    components = [Component(name, check, name in critical) for name, check in checks.items()]
    components += [
        Component(name, health_check.dependency(session, each), each.critical)
        for name, each in limits.dependencies.items()
    ]
    return Health(
        components,
        interval=limits.interval,
        timeout=limits.timeout,
        slow=limits.slow,
        now=now,
        unwell=lambda name, severity: metrics.component_unwell.labels(name).set(severity),
    )
