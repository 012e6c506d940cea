"""The whole chain of policies behind a listener in this process, over a clock of one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from gateway.core.admission import Bounds
from gateway.core.contract import STATUS
from gateway.core.credential import format_key, hash_key
from gateway.core.forwarded import TrustedProxies
from gateway.core.host import HostRule
from gateway.core.job import Job, State
from gateway.core.message import Handler
from gateway.core.route import OTHER, Match, Route, RouteTable
from gateway.policy.admission import Admission
from gateway.policy.build import Parts, build
from gateway.policy.cache import ResponseCache
from gateway.policy.cors_adapter import Find
from gateway.policy.idempotency import IdempotencyParts
from gateway.policy.key_source import KeySource
from gateway.policy.long_poll import LongPoll
from gateway.policy.openapi_source import OpenApiSource
from gateway.policy.place import ActiveJobs, LocalPlaces
from gateway.policy.shared_window import SharedWindows
from gateway.policy.ticket import Tickets
from gateway.policy.waiter import Waiters
from gateway.settings.job import Admission as AdmissionSettings
from gateway.settings.policy import PolicySet
from gateway.settings.server import Listener, Server
from gateway.store.memory.response import MemoryResponseStore
from gateway.store.memory.window import MemoryWindowStore
from gateway.telemetry.access import JsonLines
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer
from gateway.web.adapt import Adapter
from gateway.web.problem import ProblemBoundary
from gateway.web.server import PublicServer
from tests.support.fakes import FakeClock
from tests.support.policy import NoIdempotency, NoKeys

KEYS = (format_key(b"the-first-key-of-the-stack"), format_key(b"the-second-key-of-the-stack"))
ROUTES = RouteTable([Route(STATUS, "/jobs/{job_id}", frozenset({"GET", "HEAD"}))])
ENDS = "2026-09-10T00:27:30Z"  # 49.5 seconds after `START`
START = 1_789_000_000.5
POLICIES: Mapping[str, Any] = {
    "auth": {
        "entries": [
            {"id": "k1", "hash": hash_key(KEYS[0]), "owner": "alice"},
            {
                "id": "k2",
                "hash": hash_key(KEYS[1]),
                "owner": "bob",
                "expires": ENDS,
            },
        ],
        "scopes": {STATUS: []},
    },
    "rate_limits": {
        "limits": {
            "per-ip": {"limit": 30, "window": "60s", "by": ["ip"]},
            "per-key": {"limit": 24, "window": "60s", "by": ["key"]},
            "per-team": {"limit": 20, "window": "60s", "by": ["header:X-Team"]},
            "watched": {"limit": 14, "window": "60s", "by": ["key"], "mode": "shadow"},
        }
    },
}


@dataclass(slots=True)
class Stack:
    """A listener, and what may happen behind it."""

    server: PublicServer
    parts: Parts
    cache: ResponseCache
    terminal: Handler
    clock: FakeClock
    metrics: Metrics
    port: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)

    def write(self, text: str) -> None:
        """Take access lines, as a stream does."""
        self.lines.extend(map(orjson.loads, text.splitlines()))

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return False

    def apply(self, policies: Mapping[str, Any]) -> None:
        """Go by other policies."""
        made = PolicySet.model_validate(policies)
        self.cache.apply(made.cache)
        self.server.chain = build(made, self.parts, self.terminal)

    def counts(self) -> dict[str, float]:
        """Every series but those that tell of time or of connections."""
        return {
            f"{sample.name}{sample.labels}": sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if not sample.name.endswith("_created") and metric.name.startswith(_COMPARED)
        }


_COMPARED = tuple(
    f"gateway_{name}"
    for name in ("auth", "rate_limit", "cache_requests", "http_request", "validation", "cors")
)


def parts_of(
    policies: PolicySet,
    metrics: Metrics,
    clock: FakeClock,
    *,
    find: Find,
    prefix: str,
    is_active: bool = False,
    jobs: ActiveJobs | None = None,
    tracer: Tracer | None = None,
) -> Parts:
    """What a chain is made of, all of it in memory; access lines go nowhere."""
    windows = MemoryWindowStore()
    active = _NoJobs() if jobs is None else jobs
    cache = ResponseCache(
        policies.cache,
        store=MemoryResponseStore(1024**2, metrics),
        state_of=lambda _: State.RUNNING,
        is_watched=lambda _: False,
        route_of=lambda method, path: Match(OTHER),
        metrics=metrics,
        now=clock,
    )
    long_poll = LongPoll(
        policies.cache,
        cache=cache,
        waiters=Waiters(metrics),
        is_active=lambda _: is_active,
        metrics=metrics,
        now=clock,
    )
    admission = Admission(
        AdmissionSettings(max_concurrent=1),
        LocalPlaces(Bounds(1), active),
        active,
        metrics,
        clock,
    )
    return Parts(
        windows=SharedWindows(windows, windows, metrics, clock),
        keys=KeySource(NoKeys(), metrics, clock),
        tickets=Tickets(bytes(32), 60.0, clock),
        boundary=ProblemBoundary(),
        idempotency=IdempotencyParts(
            store=NoIdempotency(),
            find_job=_nobody,
            metrics=metrics,
            now=clock,
            token=lambda: "t",
            max_body=1000,
            lease_seconds=60.0,
        ),
        admission=admission,
        long_poll=long_poll,
        cache=cache,
        find=find,
        openapi=OpenApiSource(_unpublished),
        metrics=metrics,
        now=clock,
        request_id_prefix=prefix,
        tracer=tracer,
    )


@asynccontextmanager
async def stack(
    terminal: Handler, clock: FakeClock, *, fast: bool = True, tracer: Tracer | None = None
) -> AsyncIterator[Stack]:
    """The chain of `POLICIES` before `terminal`."""
    metrics = Metrics()
    policies = PolicySet.model_validate(POLICIES)
    parts = parts_of(
        policies, metrics, clock, find=ROUTES.match, prefix="stack-", is_active=True, tracer=tracer
    )
    cache = parts.cache
    assert isinstance(cache, ResponseCache)
    settings = Server(public=Listener(host="127.0.0.1", port=0), drain_timeout=1, drain_delay=0)
    server = PublicServer(
        settings,
        adapter=Adapter(ROUTES, TrustedProxies(()), HostRule(()), settings.max_body),
        chain=build(policies, parts, terminal),
        fallback_headers={},
        metrics=metrics,
        now=clock,
        fast=fast,
    )
    made = Stack(server, parts, cache, terminal, clock, metrics)
    made.parts = replace(parts, write_line=JsonLines(made, clock))
    made.apply(POLICIES)
    try:
        made.port = await server.start()
        yield made
    finally:
        await server.stop()
        await cache.close()


class _NoJobs:
    active_count = 0
    active_jobs: tuple[Job, ...] = ()
    durations: tuple[float, ...] = ()


async def _nobody(*_: object) -> None:
    """Finds no job."""


async def _unpublished(_: str) -> None:
    """An upstream without a description of itself."""
