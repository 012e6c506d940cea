"""The composition root: the only module that knows every concrete part."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from gateway.core.contract import STATUS, Unreadable, decode
from gateway.core.error import GatewayError, UpstreamError
from gateway.core.forwarded import TrustedProxies
from gateway.core.job import JobChange, State
from gateway.core.message import Handler, NoBody, Request, Response
from gateway.core.outbox import Backlog
from gateway.delivery.base import Sink
from gateway.delivery.convex import ConvexClient
from gateway.delivery.convex_sink import ConvexSink
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.guard import address_rule
from gateway.delivery.subscription import ConvexSubscription, WebhookPublisher, WebhookSubscription
from gateway.delivery.webhook import WebhookSink
from gateway.job.callback import Callbacks
from gateway.job.observer import Observer
from gateway.job.tracker import Subscriber, Tracker
from gateway.job.watcher import Watcher
from gateway.policy.admission import Admission
from gateway.policy.build import Parts, build
from gateway.policy.cache import ResponseCache
from gateway.policy.security_headers import SecurityHeaders
from gateway.settings.contract import (
    EVENTS,
    HEALTH,
    HISTORY,
    METRICS,
    WEBHOOKS,
    compile_contract,
    route_table,
    watch_rule,
)
from gateway.settings.load import load, load_policies, policies_directory
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.store.memory.response import MemoryResponseStore
from gateway.store.memory.window import MemoryWindowStore
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.job import SqliteJobStore
from gateway.store.sqlite.outbox import SqliteOutbox
from gateway.store.sqlite.webhook import SqliteWebhookStore
from gateway.telemetry import log
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import UpstreamClient
from gateway.web import health_check
from gateway.web.adapt import Adapter
from gateway.web.admin import Admin
from gateway.web.health import Check, Component, Health
from gateway.web.jobs import JobApi
from gateway.web.problem import ProblemBoundary, problem
from gateway.web.proxy import Proxy
from gateway.web.server import PublicServer, listen
from gateway.web.webhooks import Publish, WebhookApi, publish_nowhere

_GAUGE_SECONDS = 5.0
_PRUNE_SECONDS = 3600.0
_HEALTH_BYTES = 64 * 1024


class Gateway:
    """One process: everything made in the constructor, started by `start`, ended by `stop`."""

    def __init__(self, settings: Settings, policies: PolicySet) -> None:
        self.settings = settings
        self._now = time.time
        self._log = log.get_logger("app")
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = True
        self._stop_by = 0.0
        self._upstream_host = URL(settings.upstream.url).authority
        self.draining = asyncio.Event()
        self.metrics = Metrics()
        self.metrics.policy_generation.set(1)
        self.contract = compile_contract(settings.jobs)
        self.routes = route_table(settings, self.contract)
        self.client = UpstreamClient(settings.upstream, self.metrics)
        self._database = Database(settings.store.sqlite.path)
        self.jobs = SqliteJobStore(self._database)
        self.outbox = SqliteOutbox(self._database)
        self.webhooks = SqliteWebhookStore(self._database)
        self._rule = address_rule(settings.webhooks.addresses)
        self._behind()
        self._in_front(policies)

    async def start(self) -> dict[str, int]:
        """Open the stores, listen, and begin to watch and deliver; the ports by listener.

        Raises SettingsError for a store that cannot be used, OSError for a port that is taken.
        """
        try:
            return await self._start()
        except BaseException:  # a cancellation too must not leave half of it running
            await self.stop()
            raise

    async def stop(self) -> None:
        """End in the reverse order: no new requests, then no new work, then the stores."""
        self.draining.set()
        self._stop_by = asyncio.get_running_loop().time() + self.settings.server.drain_timeout
        await self._stack.aclose()

    async def _start(self) -> dict[str, int]:
        push = self._stack.push_async_callback
        push(self._database.close)
        await self._database.open()
        # This process alone has the file: what an earlier one was at when it died is free again.
        await self.jobs.void_leases()
        push(self.client.close)
        await self.client.open()
        for sink in (self._webhook_sink, self._convex_sink):
            if sink is not None:
                push(sink.close)
                await sink.start()
        push(self._stop_dispatcher)
        push(self.tracker.close)
        push(self._end_tasks)
        await self.tracker.open()
        await self.dispatcher.start()
        push(self.cache.close)
        self._dependencies = await self._stack.enter_async_context(health_check.open_session())
        self.health = self._health()
        push(self.server.stop)
        ports = {"public": await self.server.start(self.settings.server.public)}
        ports["admin"] = await self._listen_admin()
        for work in (self.watcher.run, self._lag.run, self.health.run, self._gauge, self._prune):
            self._spawn(work())
        self._starting = False
        self._log.info("listening", **ports)
        return ports

    async def _stop_dispatcher(self) -> None:
        """Within what finishing requests has left of the deadline, and a second at the least."""
        left = self._stop_by - asyncio.get_running_loop().time()
        await self.dispatcher.stop(max(1.0, left))

    def _behind(self) -> None:
        """What follows jobs and tells of them."""
        settings, now = self.settings, self._now
        subscribers: list[Subscriber] = [WebhookSubscription(self.webhooks, self.metrics)]
        self._publish: Publish = publish_nowhere
        if settings.convex.url is not None:
            self._publish = WebhookPublisher(
                settings.convex.functions, self.outbox, now=now, wake=self._wake_dispatcher
            )
        self._webhook_sink = WebhookSink(
            self.webhooks, settings.webhooks, self._rule, now=now, publish=self._publish
        )
        sinks: list[Sink] = [self._webhook_sink]
        self._convex_sink: ConvexSink | None = None
        if settings.convex.url is not None:
            subscribers.append(ConvexSubscription(settings.convex.functions))
            client = ConvexClient(settings.convex)
            self._convex_sink = ConvexSink(client, settings.convex, now=now)
            sinks.append(self._convex_sink)
        self.dispatcher = Dispatcher(
            self.outbox, sinks, now=now, jitter=random.random, metrics=self.metrics
        )
        key = settings.webhooks.secret_key
        self.callbacks = Callbacks(
            self.webhooks, self._rule, key.get_secret_value() if key else None, now
        )
        self.observer = Observer(self.client, self.contract, self._refuse, now)
        watch = settings.jobs.watch
        self.tracker = Tracker(
            jobs=self.jobs,
            contract=self.contract,
            rule=watch_rule(watch),
            subscribers=subscribers,
            prepare=self.callbacks.prepare,
            details=self.observer.details,
            instance=settings.upstream.instance or settings.upstream.url,
            adopt=watch.adopt,
            metrics=self.metrics,
            now=now,
            token=secrets.token_bytes,
        )
        self.watcher = Watcher(
            jobs=self.jobs,
            tracker=self.tracker,
            observer=self.observer,
            contract=self.contract,
            settings=watch,
            upstream=None,  # a SQLite file belongs to one replica, and so do its jobs
            metrics=self.metrics,
            now=now,
            jitter=random.random,
        )
        self.tracker.listeners.append(self._changed)

    def _in_front(self, policies: PolicySet) -> None:
        """What clients meet."""
        settings, now = self.settings, self._now
        self.proxy = Proxy(
            client=self.client,
            contract=self.contract,
            tracker=self.tracker,
            observer=self.observer,
            callbacks=self.callbacks,
            metrics=self.metrics,
            max_body=settings.server.max_body,
            now=now,
        )
        self._shared_routes = frozenset(policies.cache.public)
        store = MemoryResponseStore(policies.cache.max_bytes)
        self.cache = ResponseCache(policies.cache, store, self._state_of, self.metrics, now)
        api = WebhookApi(
            webhooks=self.webhooks,
            outbox=self.outbox,
            jobs=self.jobs,
            rule=self._rule,
            max_per_owner=settings.webhooks.max_per_owner,
            now=now,
            token=secrets.token_bytes,
            wake=self._wake_dispatcher,
            publish=self._publish,
        )
        jobs = JobApi(self.jobs)
        own: dict[str, Handler] = {
            WEBHOOKS: api.handle,
            HISTORY: jobs.handle,
            EVENTS: jobs.handle,
            HEALTH: self._public_health,
            METRICS: self._public_metrics,
        }
        proxy: Handler = self.proxy

        async def terminal(request: Request) -> Response:
            return await own.get(request.match.name, proxy)(request)

        windows = MemoryWindowStore()
        parts = Parts(
            windows=windows,
            local_windows=windows,
            boundary=ProblemBoundary(),
            admission=Admission(
                settings.jobs.admission.max_concurrent,
                lambda: self.tracker.active_count,
                lambda: self.tracker.typical_seconds,
            ),
            cache=self.cache,
            metrics=self.metrics,
            now=now,
            request_id_prefix=f"{secrets.token_hex(6)}-",
        )
        adapter = Adapter(
            self.routes,
            TrustedProxies(settings.server.trusted_proxies),
            settings.server.max_body,
            now,
        )
        self.server = PublicServer(
            adapter,
            build(policies, parts, terminal),
            SecurityHeaders(policies.security_headers).headers,
            settings.server.drain_timeout,
        )
        self._lag = health_check.LoopLag(self.metrics, settings.health.max_loop_lag)

    async def _listen_admin(self) -> int:
        admin = Admin(
            self.health,
            self.metrics if self.settings.metrics.enabled else None,
            not_ready=self._not_ready,
            drain=self.draining.set,
            problem=problem,
            about={"title": self.settings.api_title, "version": self.settings.api_version},
        )
        runner = web.AppRunner(admin.application(), access_log=None)
        self._stack.push_async_callback(runner.cleanup)
        return await listen(runner, self.settings.server.admin)

    def _health(self) -> Health:
        settings, metrics, now = self.settings, self.metrics, self._now
        convex: Check = health_check.absent()
        if self._convex_sink is not None:
            sink = self._convex_sink
            convex = health_check.reports(lambda: sink.last_error)
        backlog = self.outbox.backlog
        components = [
            Component("upstream", health_check.answers(self._ask_upstream)),
            Component("sqlite", health_check.reads(self.jobs.count_by_state), critical=True),
            Component("convex", convex),
            Component("redis", health_check.absent()),
            Component("memory", health_check.memory(settings.health.max_memory)),
            Component("cpu", health_check.cpu()),
            Component("event_loop", self._lag.check),
            Component("jobs", health_check.queue(self.jobs.unfinished, now)),
            Component("webhooks", health_check.Delivery("webhook", backlog, metrics, now).check),
            Component("policies", health_check.policies(lambda: 1, lambda: None)),
        ]
        components += [
            Component(name, health_check.dependency(self._dependencies, each), each.critical)
            for name, each in settings.health.dependencies.items()
        ]
        return Health(
            components, interval=settings.health.interval, timeout=settings.health.timeout, now=now
        )

    async def _ask_upstream(self) -> int:
        answer = await self.client.fetch(
            "GET",
            self.settings.upstream.health_path,
            {},
            limit=_HEALTH_BYTES,
            seconds=self.settings.health.timeout,
        )
        return answer.status

    async def _public_health(self, request: Request) -> Response:
        return await self.health.answer(request)

    async def _public_metrics(self, request: Request) -> Response:
        kind, body = self.metrics.render(request.headers.get("Accept", ""))
        return Response(200, CIMultiDict({"Content-Type": kind}), body)

    async def _changed(self, change: JobChange) -> None:
        """After a job's change is committed: tell who waits for it."""
        if not change.events:
            return
        self.dispatcher.wake()
        known = await self.cache.changed(change)
        if change.before is None:
            self.watcher.wake()
        if change.before is None or known:
            self._spawn(self._warm(change.job.id))

    async def _warm(self, job_id: str) -> None:
        """Fetch a job's status, so that polls find one while the upstream blocks on a creation."""
        path = self.contract.path(STATUS, job_id)
        if path is None or STATUS not in self._shared_routes:
            return
        request = Request(
            method="GET",
            target=path,
            path=path,
            query="",
            headers=CIMultiDict({"Accept": "*/*"}),
            body=NoBody(),
            match=self.routes.match("GET", path),
            client="gateway",
            scheme="http",
            host=self._upstream_host,
            received_at=self._now(),
        )
        with suppress(UpstreamError):  # the next poll asks again
            await self.cache(request, self.proxy)

    def _wake_dispatcher(self) -> None:
        self.dispatcher.wake()

    def _state_of(self, body: bytes) -> State | None:
        try:
            return self.contract.state_of(decode(body), self.contract.template(STATUS))
        except Unreadable:
            return None

    def _refuse(self, source: str, reason: str, detail: str, job_id: str | None) -> None:
        self.tracker.refuse(source, reason, detail, job_id)

    def _not_ready(self) -> str | None:
        if self._starting:
            return "starting"
        return "draining" if self.draining.is_set() else None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("task_failed", exc_info=error)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _gauge(self) -> None:
        """Keep the gauges of the outbox up to date."""
        names = [sink.name for sink in (self._webhook_sink, self._convex_sink) if sink is not None]
        while True:
            with suppress(GatewayError):  # a store that is away shows in health and its own counter
                lines = {line.sink: line for line in await self.outbox.backlog()}
                for name in names:
                    line = lines.get(name, Backlog(name, 0, 0, None))  # an empty queue has no line
                    age = 0.0 if line.oldest_at is None else self._now() - line.oldest_at
                    self.metrics.outbox_depth.labels(name).set(line.waiting + line.in_flight)
                    self.metrics.outbox_oldest_seconds.labels(name).set(max(0.0, age))
            await asyncio.sleep(_GAUGE_SECONDS)

    async def _prune(self) -> None:
        """Delete ended deliveries once they are older than is wanted."""
        while True:
            with suppress(GatewayError):  # tried again at the next turn; health shows the store
                gone = await self.outbox.prune(
                    self._now() - self.settings.webhooks.payload_retention
                )
                if gone:
                    self._log.info("deliveries_pruned", count=gone)
            await asyncio.sleep(_PRUNE_SECONDS)


def run(config: Path, port_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT.

    `port_file` is written, as JSON by listener, once the ports are open. Raises SettingsError with
    every problem, or OSError for a port that is taken.
    """
    settings = load(config, os.environ)
    policies = load_policies(policies_directory(config, settings))
    level: dict[str, str] = {"level": "debug"} if settings.debug else {}
    log.configure(settings.log.model_copy(update=level))
    uvloop.run(_serve(Gateway(settings, policies), port_file))


async def _serve(gateway: Gateway, port_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    ports = await gateway.start()
    try:
        if port_file is not None:
            _write_whole(port_file, orjson.dumps(ports))
        await stop.wait()
    finally:
        await gateway.stop()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
