"""What health is made of: one component a dependency, and the process itself."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import ClientSession

from gateway.app.behind import Behind
from gateway.app.store import Stores
from gateway.delivery.dead_letter import DeadLetters
from gateway.policy.openapi_source import OpenApiSource
from gateway.settings.model import Settings
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import UpstreamClient
from gateway.web import health_check
from gateway.web.convex_health import check_convex
from gateway.web.health import Check, Component, Health


def build_health(  # noqa: PLR0913 - collaborators, each by its name
    settings: Settings,
    *,
    stores: Stores,
    behind: Behind,
    client: UpstreamClient,
    lag: health_check.LoopLag,
    policies: Check,
    openapi: OpenApiSource,
    session: ClientSession,
    metrics: Metrics,
    now: Callable[[], float],
) -> Health:
    """Every component of `/health`; `session` asks the HTTP dependencies of the settings."""
    convex: Check = health_check.absent()
    if (sink := behind.convex_sink) is not None:
        letters = DeadLetters(stores.outbox, now, behind.wake)
        convex = check_convex(lambda: sink.last_error, letters, now)
    sqlite: Check = health_check.absent()
    if stores.replica is None:
        sqlite = health_check.reads(stores.jobs.count_by_state)
    redis: Check = health_check.absent()
    if stores.redis is not None:
        redis = health_check.reads(stores.redis.ping)
    delivery = health_check.Delivery("webhook", stores.outbox.backlog, metrics, now)
    components = [
        health_check.upstream(client, settings),
        Component("sqlite", sqlite, critical=True),
        Component("convex", convex),
        Component("redis", redis, critical=stores.replica is not None),
        Component("memory", health_check.memory(settings.health.max_memory)),
        Component("cpu", health_check.cpu()),
        Component("event_loop", lag.check),
        Component("jobs", health_check.queue(stores.jobs.unfinished, now)),
        Component("webhooks", delivery.check),
        Component("policies", policies),
        Component("openapi", health_check.openapi(lambda: openapi.state)),
    ]
    components += [
        Component(name, health_check.dependency(session, each), each.critical)
        for name, each in settings.health.dependencies.items()
    ]
    return Health(
        components, interval=settings.health.interval, timeout=settings.health.timeout, now=now
    )
