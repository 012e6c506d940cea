"""The job contract of the settings, compiled; and the table of every route."""

from __future__ import annotations

from gateway.core.contract import (
    CANCEL,
    CREATE,
    DETAILS,
    LIST,
    STATUS,
    STREAM,
    Contract,
    ContractRoute,
)
from gateway.core.job import State
from gateway.core.route import Route, RouteTable
from gateway.core.transition import WatchRule
from gateway.settings.job import JobContract, Watch
from gateway.settings.model import Settings

WEBHOOKS, HEALTH, HISTORY, EVENTS = "webhooks", "health", "jobs-history", "job-events"
TICKET = "job-ticket"
UPSTREAM_ADMIN, GATEWAY_ADMIN, METRICS = "upstream-admin", "gateway-admin", "metrics"
# The admin listener's own paths: on the public one they are not there, whatever the upstream has.
ADMIN_PATHS = ("/health/live", "/health/ready", "/metrics", "/drain", "/console")


def compile_contract(jobs: JobContract) -> Contract:
    """The contract, its expressions compiled. Raises ValueError as `Contract` does."""
    named = (
        *((CREATE, route) for route in jobs.create),
        (STATUS, jobs.status),
        (DETAILS, jobs.details),
        (STREAM, jobs.stream),
        (LIST, jobs.list),
        (CANCEL, jobs.cancel),
    )
    routes = [
        ContractRoute(name, route.path, frozenset(route.methods), route.fields)
        for name, route in named
        if route is not None
    ]
    items = jobs.list.items if jobs.list is not None else "jobs"
    return Contract(routes, jobs.fields, jobs.states, items)


def watch_rule(watch: Watch) -> WatchRule:
    """How observations become events."""
    return WatchRule(
        progress_step=watch.progress_step,
        timeout_seconds=watch.timeout,
        lost_after_seconds=watch.lost_after,
        vanished=State(watch.vanished),
    )


def route_table(settings: Settings, contract: Contract) -> RouteTable:
    """Every route by name: the gateway's own before the upstream's."""
    get = frozenset({"GET", "HEAD"})
    own = [
        Route(WEBHOOKS, "/api/v1/webhooks", gateway=True),
        Route(WEBHOOKS, "/api/v1/webhooks/*", gateway=True),
        Route(HISTORY, "/api/v1/jobs/history", gateway=True),
        Route(EVENTS, "/api/v1/jobs/{job_id}/events", gateway=True),
        Route(TICKET, "/api/v1/jobs/{job_id}/ticket", gateway=True),
    ]
    if settings.server.public_health:
        own.append(Route(HEALTH, "/health", get, gateway=True))
    if settings.metrics.enabled and settings.server.public_metrics:
        own.append(Route(METRICS, "/metrics", get, gateway=True))
    own += [Route(GATEWAY_ADMIN, path, gateway=True) for path in ADMIN_PATHS]
    admin = [
        Route(UPSTREAM_ADMIN, route.path, frozenset(route.methods))
        for route in settings.upstream.admin
    ]
    return RouteTable([*own, *contract.routes, *admin])
