"""The life of one process: everything made, started and ended in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack

from aiohttp import web
from multidict import CIMultiDict

from gateway.app.behind import Behind
from gateway.app.change import Changes
from gateway.app.convex import convex_admin
from gateway.app.front import Front
from gateway.app.health import build_health
from gateway.app.jobs import job_admin
from gateway.app.keys import key_api
from gateway.app.live import LivePolicies, PolicyFiles, PolicyState
from gateway.app.seat import Seat, as_client
from gateway.app.store import Stores
from gateway.app.tracing import traces
from gateway.app.upkeep import Tasks, flush_keys, gauge_outbox, prune, prune_idempotency, prune_jobs
from gateway.app.webhooks import webhook_admin
from gateway.core.message import Request, Response
from gateway.policy.shared_place import SharedPlaces
from gateway.settings.contract import compile_contract
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.telemetry import log
from gateway.telemetry.access import WriteLine, through_structlog
from gateway.telemetry.metric import Metrics
from gateway.telemetry.sink import BackgroundStream
from gateway.upstream.client import UpstreamClient
from gateway.web import health_check
from gateway.web.admin import Admin
from gateway.web.health import status_response
from gateway.web.problem import problem
from gateway.web.server import listen


class Gateway:
    """One process: everything made in the constructor, started by `start`, ended by `stop`."""

    def __init__(
        self,
        settings: Settings,
        policies: PolicySet,
        write_line: WriteLine = through_structlog,
        files: PolicyFiles | None = None,
        log_stream: BackgroundStream | None = None,
        seat: Seat | None = None,
    ) -> None:
        self.settings = settings
        self._log = log.get_logger("app")
        self._stack = AsyncExitStack()
        self._tasks = Tasks()
        self._seat = seat
        self._starting = True
        self._stop_by = 0.0
        self.draining = asyncio.Event()
        self.metrics = Metrics()
        self.metrics.policy_generation.set(1)
        contract = compile_contract(settings.jobs)
        self.stores = Stores(settings, policies, self.metrics)
        self._now = self.stores.now
        self.client = UpstreamClient(settings.upstream, self.metrics)
        self.traces = traces(settings.tracing, self.metrics, self._now, self._tracing_changed)
        tracer = None if self.traces is None else self.traces.tracer
        self.behind = Behind(
            settings,
            stores=self.stores,
            contract=contract,
            client=self.client,
            metrics=self.metrics,
            now=self._now,
            tracer=tracer,
        )
        self.front = Front(
            settings,
            policies,
            stores=self.stores,
            contract=contract,
            client=self.client,
            behind=self.behind,
            metrics=self.metrics,
            health=self._public_health,
            exposition=self._public_exposition,
            write_line=write_line,
            now=self._now,
            tracer=tracer,
        )
        self.live: LivePolicies | None = None
        if files is not None:
            self.live = LivePolicies(
                files,
                self.front.apply,
                poll_seconds=settings.policies.poll,
                metrics=self.metrics,
                told=self._policies_read,
            )
        self._log_lines = health_check.LogLines(log_stream, self.metrics, settings.health.slow)
        self._lag = health_check.LoopLag(self.metrics, settings.health.max_loop_lag)
        Changes(
            cache=self.front.cache,
            statuses=self.front.statuses,
            waiters=self.front.waiters,
            behind=self.behind,
            spawn=self._tasks.spawn,
        ).follow()
        if self.stores.replica is not None:
            self.stores.replica.follow(
                self.behind.tracker,
                wake=self.behind.wake,
                reconcile=self.behind.watcher.reconcile,
            )

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
        push(self.stores.close)
        await self.stores.open()
        await self.front.keys.refresh_quietly()
        if self.traces is not None:
            push(self._stop_traces)  # last of those that end spans
        push(self.client.close)
        await self.client.open()
        push(self._stop_behind)
        push(self._tasks.end)
        if self.stores.replica is not None:
            await self.stores.replica.join()
        await self.behind.start()
        push(self.front.cache.close)
        session = await self._stack.enter_async_context(health_check.open_session())
        self.health = build_health(
            self.settings,
            stores=self.stores,
            behind=self.behind,
            client=self.client,
            lag=self._lag,
            policies=health_check.policies(
                lambda: self._policy_state.generation, lambda: self._policy_state.problems
            ),
            openapi=self.front.openapi,
            tracing=self.traces.exporter if self.traces is not None else None,
            session=session,
            log_lines=self._log_lines,
            metrics=self.metrics,
            now=self._now,
        )
        if self.traces is not None:
            self.traces.exporter.start()  # it tells health
        push(self._stop_creations)
        push(self.front.server.stop)
        if self._seat is None:
            ports = {"public": await self.front.server.start()}
            ports["admin"] = await self._listen_admin()
        else:
            await self._listen_control(self._seat)
            ports = {"public": await self._seat.open(self.front.server, self._stack)}
        self._spawn_upkeep()
        self._starting = False
        self._log.info("listening", **ports)
        return ports

    def _spawn_upkeep(self) -> None:
        stores, outbox = self.stores, self.stores.outbox
        for work in (
            self.behind.watcher.run(),
            self._lag.run(),
            self.health.run(),
            gauge_outbox(outbox, self.behind.sink_names, self.metrics, self._now),
            prune(outbox, stores.webhooks, stores.audit, self.settings.webhooks, self._now),
            prune_idempotency(stores.idempotency, self._now),
            prune_jobs(stores.jobs, self.settings.jobs.retention, self._now),
            self.front.keys.follow(),
            stores.hear(),
            flush_keys(self.front.keys),
            self.front.openapi.run(),
        ):
            self._tasks.spawn(work)
        if self.live is not None:
            self._tasks.spawn(self.live.run())
        if isinstance(self.front.places, SharedPlaces):
            self._tasks.spawn(self.front.places.run())
        if stores.replica is None:
            self._tasks.spawn(stores.clock.run())
        else:
            self._tasks.spawn(stores.replica.run())

    async def _stop_creations(self) -> None:
        """Within what finishing requests has left of the deadline, and a second at the least."""
        left = self._stop_by - asyncio.get_running_loop().time()
        await self.front.idempotency.close(max(1.0, left))

    async def _stop_traces(self) -> None:
        """Likewise: what the last requests and deliveries left."""
        assert self.traces is not None
        left = self._stop_by - asyncio.get_running_loop().time()
        await self.traces.exporter.stop(max(1.0, left))

    async def _stop_behind(self) -> None:
        await self.behind.stop(self._stop_by)

    async def _listen_control(self, seat: Seat) -> None:
        """To the parent, in place of an admin listener."""
        app = self._admin(seat.routes(self.health.report))
        app.middlewares.append(as_client)
        runner = web.AppRunner(app, access_log=None)
        self._stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.UnixSite(runner, seat.place.control).start()

    async def _listen_admin(self) -> int:
        runner = web.AppRunner(self._admin(), access_log=None)
        self._stack.push_async_callback(runner.cleanup)
        return await listen(runner, self.settings.server.admin)

    def _admin(self, resources: Iterable[web.RouteDef] = ()) -> web.Application:
        return Admin(
            self.health,
            self._exposition if self.settings.metrics.enabled else None,
            not_ready=self._not_ready,
            drain=self._drain,
            problem=problem,
            about={"title": self.settings.api_title, "version": self.settings.api_version},
            resources=[
                *key_api(self.stores.keys, self.front, self._now).routes(),
                *job_admin(self.stores, self.front, self._now, self.behind.wake).routes(),
                *webhook_admin(self.stores, self.front, self._now, self.behind.wake).routes(),
                *convex_admin(self.stores, self.front, self._now, self.behind.wake).routes(),
                *resources,
            ],
        ).application()

    async def _exposition(self, accept: str) -> tuple[str, bytes]:
        return self.metrics.render(accept)

    async def _public_exposition(self, request: Request) -> Response:
        accept = request.headers.get("Accept", "")
        given = self._exposition if self._seat is None else self._seat.exposition
        kind, body = await given(accept)
        return Response(200, CIMultiDict({"Content-Type": kind}), body)

    async def _public_health(self, request: Request) -> Response:
        if self._seat is None:
            return await self.health.answer(request)
        return status_response(self._seat.status(self.health.status))

    @property
    def _policy_state(self) -> PolicyState:
        return PolicyState() if self.live is None else self.live.state

    def _policies_read(self) -> None:
        """Health tells of it at once, not at the next round."""
        self._tasks.spawn(self.health.look("policies"))

    def _tracing_changed(self) -> None:
        """Likewise."""
        self._tasks.spawn(self.health.look("tracing"))

    def _drain(self) -> None:
        """Readiness turns first; clients are sent elsewhere after that."""
        self.draining.set()
        self.front.server.drain()

    def _not_ready(self) -> str | None:
        if self._starting:
            return "starting"
        return "draining" if self.draining.is_set() else None
