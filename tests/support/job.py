"""What follows jobs, put together around one SQLite file, and an upstream that obeys a test."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.core.contract import Contract
from gateway.core.error import StoreUnavailable
from gateway.core.job import EventType, Job, JobChange, Observation, State
from gateway.core.outbox import Claim, Message
from gateway.core.pace import Pace
from gateway.core.rendering import Rendering
from gateway.job.birth import Creation
from gateway.job.broadcast import Broadcasts
from gateway.job.gate import Gate
from gateway.job.observer import Observer
from gateway.job.tracker import Tracker
from gateway.job.watcher import Watcher
from gateway.settings.contract import compile_contract, watch_rule
from gateway.settings.job import JobContract, Watch
from gateway.settings.upstream import Upstream
from gateway.store.job import TimelineEntry
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.job import SqliteJobStore
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import UpstreamClient

NOW = 1_700_000_000.0
INSTANCE = "one"
# The scripted upstream's own contract.
CONTRACT: Mapping[str, Any] = {
    "create": [{"path": "/jobs"}],
    "status": {"path": "/jobs/{job_id}"},
    "details": {"path": "/jobs/{job_id}/details"},
    "stream": {"path": "/jobs/{job_id}/stream"},
    "list": {"path": "/jobs"},
    "fields": {
        "id": "id",
        "subject": "subject",
        "state": "status",
        "stage": "stage",
        "percentage": "percentage",
        "error": "error",
        "results": "results",
    },
    "states": {
        "queued": ["queued"],
        "running": ["*"],
        "completed": ["completed"],
        "failed": ["failed"],
        "cancelled": ["cancelled"],
    },
}
# Polls follow each other as fast as the loop turns; every other wait is left to the clock.
BRISK: Mapping[str, Any] = {"poll": {"min": 0.005, "max": 0.02}, "max_per_second": 10_000}


class Clock:
    """Wall-clock seconds that stand still until they are advanced, or also run by themselves."""

    def __init__(self, *, runs: bool = False) -> None:
        self._started = time.monotonic() if runs else None
        self._skipped = 0.0

    def __call__(self) -> float:
        ran = 0.0 if self._started is None else time.monotonic() - self._started
        return NOW + self._skipped + ran

    def advance(self, seconds: float) -> None:
        self._skipped += seconds


class UnreliableJobStore(SqliteJobStore):
    """The real store; it can be away, and somebody else can be faster."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.down = False
        self.recorded: list[JobChange] = []
        self.refused = 0
        self.claims_asked = 0
        self.rival: Callable[[], Awaitable[None]] | None = None

    async def record(
        self, change: JobChange, timeline: Sequence[TimelineEntry], messages: Sequence[Message]
    ) -> bool:
        self._answer()
        if self.rival is not None:
            rival, self.rival = self.rival, None
            await rival()
        done = await super().record(change, timeline, messages)
        if done:
            self.recorded.append(change)
        else:
            self.refused += 1
        return done

    async def get(self, job_id: str) -> Job | None:
        self._answer()
        return await super().get(job_id)

    async def claim_due(
        self, upstream: str | None, limit: int, now: float, lease_seconds: float
    ) -> Sequence[Claim[Job]]:
        self.claims_asked += 1
        self._answer()
        return await super().claim_due(upstream, limit, now, lease_seconds)

    async def renew(self, claims: Sequence[Claim[Job]], lease_until: float) -> Collection[str]:
        self._answer()
        return await super().renew(claims, lease_until)

    async def release(self, claim: Claim[Job], due_at: float) -> bool:
        self._answer()
        return await super().release(claim, due_at)

    async def latest_of_subject(self, subject: str) -> Job | None:
        self._answer()
        return await super().latest_of_subject(subject)

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("The store is away.")


class Recorder:
    """Hears of every change that was committed."""

    def __init__(self) -> None:
        self.changes: list[JobChange] = []
        self._heard = asyncio.Condition()

    async def __call__(self, change: JobChange) -> None:
        async with self._heard:
            self.changes.append(change)
            self._heard.notify_all()

    async def until(self, holds: Callable[[JobChange], bool]) -> JobChange:
        """The first change of which it holds, now or later."""
        async with self._heard:
            await self._heard.wait_for(lambda: any(map(holds, self.changes)))
        return next(filter(holds, self.changes))

    async def ended(self, job_id: str = "j1") -> Job:
        """The job once it has ended."""
        change = await self.until(lambda c: c.job.id == job_id and c.job.state.terminal)
        return change.job

    def types(self, job_id: str = "j1") -> list[EventType]:
        """The types of a job's events, in the order they were committed."""
        return [e.type for c in self.changes if c.job.id == job_id for e in c.events]

    def sequences(self, job_id: str = "j1") -> list[int]:
        """Their sequence numbers."""
        return [e.sequence for c in self.changes if c.job.id == job_id for e in c.events]


Stream = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


@dataclass
class ScriptedUpstream:
    """Answers of a job API as a test sets them; `asked` counts what was asked for."""

    status: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    listed: list[Any] = field(default_factory=list)
    code: int = 200
    down: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    headers: list[Mapping[str, str]] = field(default_factory=list)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._count])
        app.router.add_get("/jobs", self._list)
        app.router.add_get("/jobs/{id}", self._status)
        app.router.add_get("/jobs/{id}/details", self._details)
        app.router.add_get("/jobs/{id}/stream", self._stream)
        return app

    @web.middleware
    async def _count(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        self.asked[request.path] += 1
        self.headers.append(dict(request.headers))
        if self.down:
            assert request.transport is not None
            request.transport.abort()
            raise web.HTTPServiceUnavailable
        return await handler(request)

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"jobs": self.listed}, status=self.code)

    async def _status(self, request: web.Request) -> web.Response:
        return self._one(self.status, request)

    async def _details(self, request: web.Request) -> web.Response:
        return self._one(self.details, request)

    def _one(self, documents: Mapping[str, Any], request: web.Request) -> web.Response:
        document = documents.get(request.match_info["id"])
        if document is None:
            raise web.HTTPNotFound
        if isinstance(document, bytes):
            return web.Response(body=document, status=self.code)
        return web.json_response(document, status=self.code)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        script = self.streams.get(request.match_info["id"])
        if script is None:
            raise web.HTTPNotFound
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await script(request, response)
        return response


@dataclass
class Jobs:
    """Tracker and watcher over one store and one upstream."""

    upstream: ScriptedUpstream
    store: UnreliableJobStore
    tracker: Tracker
    watcher: Watcher
    metrics: Metrics
    clock: Clock
    recorder: Recorder
    prepared: list[Job]

    async def create(self, job_id: str = "j1", **fields: Any) -> Job:
        """A job seen being created, as the proxy reports it."""
        observation = Observation(job_id, self.clock(), state=State.QUEUED, **fields)
        job = await self.tracker.created(observation, Creation("alice", request_id="r1"))
        self.watcher.wake()
        return job

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """The watcher at work; afterwards it has given back its claims."""
        task = asyncio.create_task(self.watcher.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def count(self, source: str, result: str) -> float:
        """How many observations of a source had this result."""
        return float(self.metrics.observations_total.labels(source, result)._value.get())

    def refusals(self, reason: str) -> float:
        """How many answers were refused for this reason."""
        return float(self.metrics.observations_refused_total.labels(reason)._value.get())


@asynccontextmanager
async def serving(upstream: ScriptedUpstream) -> AsyncIterator[str]:
    """The upstream's URL while it answers."""
    async with TestServer(upstream.application(), host="127.0.0.1") as server:
        yield str(server.make_url("/")).rstrip("/")


@asynccontextmanager
async def assembled(
    path: Path,
    url: str,
    upstream: ScriptedUpstream,
    *,
    clock: Clock,
    contract: Mapping[str, Any] = CONTRACT,
    watch: Mapping[str, Any] = BRISK,
    subscribers: Sequence[Any] = (),
) -> AsyncIterator[Jobs]:
    """Everything that follows jobs, opened; the watcher is not yet at work."""
    settings = JobContract.model_validate({**contract, "watch": watch})
    compiled: Contract = compile_contract(settings)
    metrics = Metrics()
    client = UpstreamClient(Upstream(url=url), metrics)
    database = Database(path)
    await database.open()
    await client.open()
    store = UnreliableJobStore(database)
    recorder = Recorder()
    prepared: list[Job] = []

    async def prepare(job: Job) -> None:
        prepared.append(job)

    def refuse(source: str, reason: str, detail: str, job_id: str | None) -> None:
        tracker.refuse(source, reason, detail, job_id)

    gate = Gate(Pace(settings.watch.max_per_second), metrics, clock)
    observer = Observer(client, compiled, refuse, clock, gate)
    tracker = Tracker(
        jobs=store,
        contract=compiled,
        rule=watch_rule(settings.watch),
        subscribers=subscribers,
        prepare=prepare,
        details=observer.details,
        instance=INSTANCE,
        adopt=settings.watch.adopt,
        metrics=metrics,
        now=clock,
        token=bytes,
    )
    tracker.listeners.append(recorder)
    broadcasts = Broadcasts(
        settings.fan_out,
        Rendering(compiled, settings.states),
        active=tracker.active,
        metrics=metrics,
        now=clock,
    )
    tracker.listeners.append(broadcasts.noted)
    watcher = Watcher(
        jobs=store,
        tracker=tracker,
        observer=observer,
        broadcasts=broadcasts,
        contract=compiled,
        settings=Watch.model_validate(watch),
        upstream=INSTANCE,
        metrics=metrics,
        now=clock,
    )
    try:
        yield Jobs(upstream, store, tracker, watcher, metrics, clock, recorder, prepared)
    finally:
        store.down = False
        broadcasts.close()
        await tracker.close()
        await client.close()
        await database.close()
