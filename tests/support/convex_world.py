"""From a job's change to Convex: an outbox on disk, a dispatcher, and jobs that a test moves."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gateway.core.event import envelope
from gateway.core.job import Job, JobChange, Observation, State
from gateway.core.outbox import Delivery
from gateway.core.transition import WatchRule, advance, begin
from gateway.delivery.convex import ConvexClient
from gateway.delivery.convex_sink import ConvexSink
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.subscription import ConvexSubscription
from gateway.settings.delivery import Convex
from gateway.store.outbox import DeliveryQuery
from gateway.store.sqlite import Database, SqliteJobStore, SqliteOutbox
from gateway.telemetry.metric import Metrics
from tests.support.convex import ConvexServer

EVERY_PERCENT = WatchRule(progress_step=1.0)


@dataclass
class World:
    """A store, a dispatcher over it, and jobs that change when a test says so."""

    server: ConvexServer
    directory: Path
    settings: Convex
    metrics: Metrics = field(default_factory=Metrics)
    now: Callable[[], float] = time.time

    async def open(self) -> None:
        """Open the store and begin to deliver."""
        self.database = Database(self.directory / "gateway.db")
        await self.database.open()
        self.jobs = SqliteJobStore(self.database)
        self.outbox = SqliteOutbox(self.database)
        self.client = ConvexClient(self.settings)
        self.sink = ConvexSink(self.client, self.settings, now=self.now)
        await self.sink.start()
        self.dispatcher = Dispatcher(
            self.outbox, [self.sink], now=self.now, jitter=random.random, metrics=self.metrics
        )
        await self.dispatcher.start()

    async def close(self) -> None:
        """Stop, leaving what waits in the store."""
        await self.dispatcher.stop(0.0)
        await self.sink.close()
        await self.database.close()

    async def create(self, job_id: str = "j1", **fields: Any) -> Job:
        """A new job, recorded."""
        at = self.now()
        blank = Job(job_id, "01K", "acme", "u1", State.QUEUED, at, at, subject="v1", **fields)
        seen = Observation(job_id, at, state=State.QUEUED)
        return await self.record(begin(blank, seen, at))

    async def observe(self, job: Job, state: State = State.RUNNING, **seen: Any) -> Job:
        """The job after one more observation, recorded."""
        at = self.now()
        change = advance(job, Observation(job.id, at, state=state, **seen), at, EVERY_PERCENT)
        assert change is not None
        return await self.record(change)

    async def record(self, change: JobChange) -> Job:
        """Commit a change together with its messages; the job as stored."""
        envelopes = [envelope(change.job, event, None) for event in change.events]
        subscription = ConvexSubscription(self.settings.functions)
        messages = await subscription.messages(change, envelopes)
        assert await self.jobs.record(change, [], messages)
        self.dispatcher.wake()
        stored = await self.jobs.get(change.job.id)
        assert stored is not None
        return stored

    async def log(self) -> Sequence[Delivery]:
        """Every delivery, in the order of its event."""
        deliveries, _ = await self.outbox.deliveries(DeliveryQuery("convex", limit=1000))
        return sorted(deliveries, key=lambda each: each.message.sequence)

    async def until(self, condition: Callable[[Sequence[Delivery]], bool]) -> Sequence[Delivery]:
        """The log once `condition` holds of it. Raises TimeoutError."""
        async with asyncio.timeout(30):
            # What changes is a row of a database: there is nothing to await.
            while not condition(deliveries := await self.log()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return deliveries

    async def settled(self) -> Sequence[Delivery]:
        """The log once nothing in it waits any more."""
        return await self.until(lambda log: all(each.message.status.final for each in log))

    async def row(self, table: str) -> Mapping[str, Any]:
        """The only row of a table."""
        (row,) = await self.server.dump(table)
        return row


def settings_of(server: ConvexServer, **fields: Any) -> Convex:
    """Settings for this deployment, with quick retries."""
    values: dict[str, Any] = {
        "url": server.url,
        "deploy_key": SecretStr(server.deploy_key),
        "retry_delays": (0.01,),
        "timeout": 5.0,
    }
    return Convex(**(values | fields))


@asynccontextmanager
async def opened(
    server: ConvexServer,
    directory: Path,
    *,
    now: Callable[[], float] = time.time,
    **fields: Any,
) -> AsyncIterator[World]:
    """A world that is open; `fields` are of the `convex` settings."""
    world = World(server, directory, settings_of(server, **fields), now=now)
    await world.open()
    try:
        yield world
    finally:
        await world.close()
