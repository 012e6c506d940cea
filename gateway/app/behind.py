"""What follows jobs and tells of them: tracker, watcher, dispatcher and the sinks."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack

from gateway.app.store import Stores
from gateway.core.contract import STREAM, Contract
from gateway.core.pace import Pace
from gateway.core.rendering import Rendering
from gateway.delivery.base import Sink
from gateway.delivery.convex import ConvexClient
from gateway.delivery.convex_sink import ConvexSink
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.guard import address_rule
from gateway.delivery.subscription import ConvexSubscription, WebhookPublisher, WebhookSubscription
from gateway.delivery.webhook import WebhookSink
from gateway.job.broadcast import Broadcasts
from gateway.job.callback import Callbacks
from gateway.job.gate import Gate
from gateway.job.observer import Observer
from gateway.job.record import Subscriber
from gateway.job.tracker import Tracker
from gateway.job.watcher import Watcher
from gateway.settings.contract import watch_rule
from gateway.settings.job import JobContract
from gateway.settings.model import Settings
from gateway.telemetry.log import get_logger
from gateway.telemetry.metric import Metrics
from gateway.telemetry.trace import Tracer
from gateway.upstream.client import UpstreamClient
from gateway.web.webhooks import Publish, publish_nowhere

# Longer than it takes to record a creation that was just answered.
_ADOPT_AFTER_SECONDS = 3.0


class Behind:
    """From an observed change to its deliveries; `start` and `stop` once each."""

    def __init__(
        self,
        settings: Settings,
        *,
        stores: Stores,
        contract: Contract,
        client: UpstreamClient,
        metrics: Metrics,
        now: Callable[[], float],
        tracer: Tracer | None,
    ) -> None:
        self._tracer = tracer
        self._stores = stores
        self._metrics = metrics
        self._now = now
        self._stack = AsyncExitStack()
        self._stop_by = 0.0
        self.rule = address_rule(settings.webhooks.addresses)
        self._sinks(settings)
        key = settings.webhooks.secret_key
        self.callbacks = Callbacks(
            stores.webhooks, self.rule, key.get_secret_value() if key else None, now
        )
        gate = Gate(Pace(settings.jobs.watch.max_per_second), metrics, now)
        self.observer = Observer(client, contract, self._refuse, now, gate)
        self._followers(settings, contract)

    async def start(self) -> None:
        """Deliver and track; the watcher runs apart (`watcher.run`)."""
        push = self._stack.push_async_callback
        for sink in (self.webhook_sink, self.convex_sink):
            if sink is not None:
                push(sink.close)
                await sink.start()
        push(self._stop_dispatcher)
        push(self.tracker.close)
        await self.tracker.open()
        await self.dispatcher.start()

    async def stop(self, stop_by: float) -> None:
        """End in the reverse order; deliveries in flight may last until `stop_by` (loop time)."""
        self.broadcasts.close()
        self._stop_by = stop_by
        await self._stack.aclose()

    @property
    def sink_names(self) -> tuple[str, ...]:
        """The sinks in use, as metrics name them."""
        sinks = (self.webhook_sink, self.convex_sink)
        return tuple(sink.name for sink in sinks if sink is not None)

    def wake(self) -> None:
        """Messages have been added: look at once."""
        self.dispatcher.wake()

    async def _stop_dispatcher(self) -> None:
        """Within what finishing requests has left of the deadline, and a second at the least."""
        left = self._stop_by - asyncio.get_running_loop().time()
        await self.dispatcher.stop(max(1.0, left))

    def _sinks(self, settings: Settings) -> None:
        stores, now = self._stores, self._now
        self._subscribers: list[Subscriber] = [WebhookSubscription(stores.webhooks, self._metrics)]
        self.publish: Publish = publish_nowhere
        self.convex_sink: ConvexSink | None = None
        sinks: list[Sink] = []
        if settings.convex.url is not None:
            self._subscribers.append(ConvexSubscription(settings.convex.functions))
            self.publish = WebhookPublisher(
                settings.convex.functions, stores.outbox, now=now, wake=self.wake
            )
            self.convex_sink = ConvexSink(ConvexClient(settings.convex), settings.convex, now=now)
            sinks.append(self.convex_sink)
        self.webhook_sink = WebhookSink(
            stores.webhooks,
            settings.webhooks,
            self.rule,
            now=now,
            wall=stores.wall,
            publish=self.publish,
        )
        sinks.insert(0, self.webhook_sink)
        self.dispatcher = Dispatcher(
            stores.outbox,
            sinks,
            now=now,
            jitter=random.random,
            metrics=self._metrics,
            lease_margin_seconds=settings.webhooks.lease_margin,
            tracer=self._tracer,
        )

    def _followers(self, settings: Settings, contract: Contract) -> None:
        jobs, watch, replica = self._stores.jobs, settings.jobs.watch, self._stores.replica
        instance = settings.upstream.instance or settings.upstream.url
        # A SQLite file belongs to one replica, and so do its jobs. With a shared store an upstream
        # that is not shared knows its own jobs alone.
        is_alone = replica is not None and not settings.upstream.shared
        shares = replica is not None and (settings.upstream.shared or settings.workers > 1)
        self.tracker = Tracker(
            jobs=jobs,
            contract=contract,
            rule=watch_rule(watch),
            subscribers=self._subscribers,
            prepare=self.callbacks.prepare,
            details=self.observer.details,
            instance=instance,
            own_only=is_alone,
            adopt=watch.adopt,
            metrics=self._metrics,
            now=self._now,
            token=secrets.token_bytes,
        )
        self.broadcasts = Broadcasts(
            settings.jobs.fan_out,
            _rendering(contract, settings.jobs),
            active=self.tracker.active,
            metrics=self._metrics,
            now=self._now,
        )
        self.tracker.listeners.append(self.broadcasts.noted)
        self.tracker.listeners_elsewhere.append(self.broadcasts.noted)
        self.watcher = Watcher(
            jobs=jobs,
            tracker=self.tracker,
            observer=self.observer,
            broadcasts=self.broadcasts,
            contract=contract,
            settings=watch,
            upstream=instance if is_alone else None,
            # Who watches the same jobs: workers of one upstream, every replica of a shared one.
            replicas=lambda: settings.workers if replica is None or is_alone else replica.count,
            adopt_after_seconds=_ADOPT_AFTER_SECONDS if shares else 0.0,
            metrics=self._metrics,
            now=self._now,
        )

    def _refuse(self, source: str, reason: str, detail: str, job_id: str | None) -> None:
        self.tracker.refuse(source, reason, detail, job_id)


def _rendering(contract: Contract, jobs: JobContract) -> Rendering | None:
    """What writes a job as its upstream would; None where the contract cannot be turned round."""
    if not contract.has(STREAM):
        return None
    try:
        return Rendering(contract, jobs.states)
    except ValueError as error:
        get_logger("stream").info("stream_not_rendered", reason=str(error))
        return None
