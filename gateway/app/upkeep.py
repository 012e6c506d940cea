"""What runs beside the requests: background tasks, gauges, and the end of old records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from gateway.core.error import GatewayError
from gateway.core.outbox import Backlog
from gateway.policy.key_source import KeySource
from gateway.settings.delivery import Webhooks
from gateway.store.audit import AuditLog
from gateway.store.idempotency import IdempotencyStore
from gateway.store.job import JobStore
from gateway.store.outbox import Outbox
from gateway.store.webhook import WebhookStore
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics

_GAUGE_SECONDS = 5.0
_PRUNE_SECONDS = 3600.0
_FLUSH_SECONDS = 30.0
_PRUNE_IDEMPOTENCY_SECONDS = 300.0


class Tasks:
    """Background tasks: one that fails is logged, and all end together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = get_logger("app")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it until it ends or `end` is called."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def end(self) -> None:
        """Cancel every task and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("task_failed", exc_info=error)


async def gauge_outbox(
    outbox: Outbox, sinks: Sequence[str], metrics: Metrics, now: Callable[[], float]
) -> None:
    """Keep the gauges of the outbox up to date."""
    while True:
        with suppress(GatewayError):  # a store that is away shows in health and its own counter
            lines = {line.sink: line for line in await outbox.backlog()}
            for name in sinks:
                line = lines.get(name, Backlog(name, 0, 0, None))  # an empty queue has no line
                age = 0.0 if line.oldest_at is None else now() - line.oldest_at
                metrics.outbox_depth.labels(name).set(line.waiting + line.in_flight)
                metrics.outbox_oldest_seconds.labels(name).set(max(0.0, age))
        await asyncio.sleep(_GAUGE_SECONDS)


async def flush_keys(keys: KeySource) -> None:
    """Write down now and then, and at the end, when keys were last used.

    The keys are looked at too: a change that could not be taken up when it was made is now.
    """
    try:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            await keys.refresh_quietly()
            with suppress(GatewayError):  # kept for the next turn; health shows the store
                await keys.flush()
    finally:
        with suppress(GatewayError):
            await keys.flush()


async def prune_idempotency(store: IdempotencyStore, now: Callable[[], float]) -> None:
    """Delete idempotency keys that have expired."""
    log = get_logger("app")
    while True:
        with suppress(GatewayError):  # tried again at the next turn; health shows the store
            if count := await store.prune(now()):
                log.info("records_pruned", what="idempotency", count=count)
        await asyncio.sleep(_PRUNE_IDEMPOTENCY_SECONDS)


async def prune_jobs(jobs: JobStore, retention_seconds: float, now: Callable[[], float]) -> None:
    """Delete jobs that ended longer ago than is wanted, and their timelines."""
    log = get_logger("app")
    while True:
        with suppress(GatewayError):  # tried again at the next turn; health shows the store
            if count := await jobs.prune(now() - retention_seconds):
                log.info("records_pruned", what="jobs", count=count)
        await asyncio.sleep(_PRUNE_SECONDS)


async def prune(
    outbox: Outbox,
    webhooks: WebhookStore,
    audit: AuditLog,
    settings: Webhooks,
    now: Callable[[], float],
) -> None:
    """Delete what is older than is wanted: bodies, deliveries, callbacks of ended jobs, audit.

    A callback stays as long as the log of its deliveries.
    """
    log = get_logger("app")
    while True:
        at = now()
        jobs: Mapping[str, Callable[[], Awaitable[int]]] = {
            "payloads": partial(outbox.drop_payloads, at - settings.payload_retention),
            "deliveries": partial(outbox.prune, at - settings.attempt_retention),
            "callbacks": partial(webhooks.prune, at - settings.attempt_retention, at),
            "audit": partial(audit.prune, at - settings.audit_retention),
        }
        for what, delete in jobs.items():
            with suppress(GatewayError):  # tried again at the next turn; health shows the store
                if count := await delete():
                    log.info("records_pruned", what=what, count=count)
        await asyncio.sleep(_PRUNE_SECONDS)
