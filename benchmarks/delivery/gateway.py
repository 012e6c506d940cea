"""The gateway's own parts between a job's change and its receiver, in a process of their own.

`python -m benchmarks.delivery.gateway` reads one JSON object of `Work` from stdin, does it, and
prints when each event was observed, and the CPU time from the first to the last delivery:
`{"observed": {"<event id>": epoch seconds}, "cpu_seconds": seconds}`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import uvloop

from gateway.core.address import AddressRule
from gateway.core.event import envelope, serialize
from gateway.core.identifier import derived
from gateway.core.job import Job, JobChange, Observation, State
from gateway.core.outbox import Message
from gateway.core.transition import WatchRule, advance, begin
from gateway.core.webhook import Webhook
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.subscription import WebhookSubscription
from gateway.delivery.webhook import SINK, WebhookSink
from gateway.settings.delivery import Webhooks
from gateway.settings.telemetry import Log
from gateway.store.job import TimelineEntry
from gateway.store.sqlite import Database, SqliteJobStore, SqliteOutbox, SqliteWebhookStore
from gateway.telemetry.log import configure
from gateway.telemetry.metric import Metrics

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the specification's example
DRAIN_SECONDS = 60.0
BEHIND = "wh_behind"
_RULE = AddressRule.parse(("http",), (), any_port=True, allow=("127.0.0.1/32",))
_WATCH = WatchRule()


@dataclass(frozen=True, slots=True)
class Work:
    """The events go round over all `webhooks`; `backlog` more messages wait already."""

    folder: str
    port: int
    core: int
    events: int
    per_second: float
    webhooks: int
    backlog: int


class Gateway:
    """Store, subscriptions and dispatcher as `gateway serve` puts them together."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._database = Database(Path(work.folder) / "gateway.db")
        self._jobs = SqliteJobStore(self._database)
        self._outbox = SqliteOutbox(self._database)
        self._webhooks = SqliteWebhookStore(self._database)
        metrics = Metrics()
        self._subscription = WebhookSubscription(self._webhooks, metrics)
        self._sink = WebhookSink(self._webhooks, Webhooks(), _RULE, now=time.time)
        self._dispatcher = Dispatcher(
            self._outbox, [self._sink], now=time.time, jitter=random.random, metrics=metrics
        )
        self.observed: dict[str, float] = {}
        self.cpu_seconds = 0.0

    async def run(self) -> None:
        """Make the events at their rate, and end when all are delivered."""
        await self._database.open()
        try:
            await self._fill()
            await self._sink.start()
            await self._dispatcher.start()
            began = time.process_time()
            await self._observe_all()
            await self._drained()
            self.cpu_seconds = time.process_time() - began
        finally:
            await self._dispatcher.stop(5.0)
            await self._sink.close()
            await self._database.close()

    async def _observe_all(self) -> None:
        loop = asyncio.get_running_loop()
        started, tasks = loop.time(), set()
        for number in range(0, self._work.events, 2):
            await asyncio.sleep(started + number / self._work.per_second - loop.time())
            task = loop.create_task(self._live(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def _live(self, number: int) -> None:
        """A job's life: two events, of which the second comes once the first is on the disk."""
        at, job_id = time.time(), f"job-{number}"
        blank = Job(
            job_id, "i", f"owner-{number // 2 % self._work.webhooks}", "u", State.QUEUED, at, at
        )
        queued = begin(blank, Observation(job_id, at, state=State.QUEUED), at)
        await self._record(queued)
        at = time.time()
        done = Observation(job_id, at, state=State.COMPLETED, results={"highlights": []})
        change = advance(replace(queued.job, version=1), done, at, _WATCH)
        assert change is not None
        await self._record(change)

    async def _record(self, change: JobChange) -> None:
        status_url = f"/api/v1/analysis/{change.job.id}/status"
        envelopes = [envelope(change.job, event, status_url) for event in change.events]
        messages = await self._subscription.messages(change, envelopes)
        entries = [
            TimelineEntry(event.sequence, event.type, event.at, each["id"], serialize(each))
            for event, each in zip(change.events, envelopes, strict=True)
        ]
        self.observed |= {entry.event_id: entry.at for entry in entries}
        assert await self._jobs.record(change, entries, messages)
        self._dispatcher.wake()

    async def _drained(self) -> None:
        async with asyncio.timeout(DRAIN_SECONDS):
            while (due_at := await self._outbox.next_due_at(SINK)) is not None:
                if due_at > time.time() + 60:  # what is not meant to be delivered in this run
                    return
                await asyncio.sleep(0.05)

    async def _fill(self) -> None:
        at = time.time()
        for number in range(self._work.webhooks):
            owner = f"owner-{number}"
            webhook = Webhook(f"wh_{number}", owner, self._url(number), SECRET, at, at)
            await self._webhooks.add(webhook)
        body = b'{"waits":true}'
        for first in range(0, self._work.backlog, 5000):
            numbers = range(first, min(first + 5000, self._work.backlog))
            await self._outbox.enqueue([self._behind(n, at, body) for n in numbers])

    def _behind(self, number: int, at: float, body: bytes) -> Message:
        """A message that a receiver which is away has failed: it waits for its retry."""
        event, webhook = f"evt-behind-{number}", f"{BEHIND}_{number % 100}"
        return Message(
            derived("dlv_", at, event, webhook),
            SINK,
            webhook,
            "job.completed",
            event,
            f"job-behind-{number}",
            1,
            body,
            at,
            at + 3600,
        )

    def _url(self, number: int) -> str:
        return f"http://127.0.0.1:{self._work.port}/{number}"


def main() -> None:
    """Do the work that stdin names."""
    work = Work(**orjson.loads(sys.stdin.readline()))
    os.sched_setaffinity(0, {work.core})
    with Path(work.folder, "gateway.log").open("w") as log:
        configure(Log(), log)
        gateway = Gateway(work)
        uvloop.run(gateway.run())
    said = {"observed": gateway.observed, "cpu_seconds": gateway.cpu_seconds}
    print(orjson.dumps(said).decode(), flush=True)


if __name__ == "__main__":
    main()
