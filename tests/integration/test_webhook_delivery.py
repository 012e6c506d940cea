"""From a job's change to its receivers over real sockets, with the outbox on disk."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.core.address import AddressRule
from gateway.core.event import envelope
from gateway.core.job import Job, JobChange, Observation, State
from gateway.core.outbox import Delivery, DeliveryStatus, Message
from gateway.core.retry import Outcome
from gateway.core.transition import WatchRule, advance, begin
from gateway.core.webhook import WebhookStatus
from gateway.delivery.dispatcher import Dispatcher
from gateway.delivery.subscription import WebhookSubscription
from gateway.delivery.webhook import WebhookSink
from gateway.settings.delivery import Webhooks
from gateway.store.audit import AuditQuery
from gateway.store.outbox import DeliveryQuery
from gateway.store.sqlite import (
    Database,
    SqliteAuditLog,
    SqliteJobStore,
    SqliteOutbox,
    SqliteWebhookStore,
)
from gateway.telemetry.metric import Metrics
from tests.support.delivery import SECRET, ScriptedSink, make_message, make_webhook
from tests.support.dns import DnsResolver, DnsServer
from tests.support.receiver import Answer, Drop, Hang, Receiver, Reply

RULE = AddressRule.parse(("http",), (), any_port=True, allow=("127.0.0.1/32",))
BRISK = Webhooks(retry_delays=(0.01,) * 9, max_retries=9, timeout=10.0)
EVERY_PERCENT = WatchRule(progress_step=1.0)


@dataclass
class World:
    """A store, a dispatcher over it, and jobs that change when a test says so."""

    directory: Path
    settings: Webhooks = BRISK
    rule: AddressRule = RULE
    names: DnsResolver | None = None
    metrics: Metrics = field(default_factory=Metrics)

    async def open(self) -> None:
        self.database = Database(self.directory / "gateway.db")
        await self.database.open()
        self.jobs = SqliteJobStore(self.database)
        self.outbox = SqliteOutbox(self.database)
        self.webhooks = SqliteWebhookStore(self.database)
        self.subscription = WebhookSubscription(self.webhooks, self.metrics)
        self.sink = WebhookSink(
            self.webhooks, self.settings, self.rule, now=time.time, resolver=self.names
        )
        await self.sink.start()
        self.dispatcher = Dispatcher(
            self.outbox, [self.sink], now=time.time, jitter=random.random, metrics=self.metrics
        )

    async def close(self, deadline_seconds: float = 0.0) -> None:
        await self.dispatcher.stop(deadline_seconds)
        await self.sink.close()
        await self.database.close()

    async def create(self, job_id: str = "j1") -> Job:
        """A queued job: `job.started`."""
        at = time.time()
        blank = Job(job_id, "01K", "acme", "u1", State.QUEUED, at, at, subject="v1")
        seen = Observation(job_id, at, state=State.QUEUED)
        return await self._record(begin(blank, seen, at))

    async def observe(self, job: Job, state: State = State.RUNNING, **seen: Any) -> Job:
        """The job after an observation."""
        at = time.time()
        change = advance(job, Observation(job.id, at, state=state, **seen), at, EVERY_PERCENT)
        assert change is not None
        return await self._record(change)

    async def _record(self, change: JobChange) -> Job:
        envelopes = [envelope(change.job, event, None) for event in change.events]
        messages = await self.subscription.messages(change, envelopes)
        assert await self.jobs.record(change, [], messages)
        self.dispatcher.wake()
        stored = await self.jobs.get(change.job.id)
        assert stored is not None
        return stored

    async def log(self, webhook_id: str = "wh_1") -> Sequence[Delivery]:
        """The webhook's deliveries, oldest first, each with its attempts."""
        query = DeliveryQuery(webhook_id, limit=1000)
        deliveries, cursor = await self.outbox.deliveries(query)
        assert cursor is None
        return sorted(deliveries, key=lambda each: each.message.sequence)

    async def settled(self, webhook_id: str = "wh_1") -> Sequence[Delivery]:
        """The log once nothing in it waits any more. Raises TimeoutError."""
        return await self.until(
            lambda log: all(each.message.status.final for each in log), webhook_id
        )

    async def until(
        self, condition: Callable[[Sequence[Delivery]], bool], webhook_id: str = "wh_1"
    ) -> Sequence[Delivery]:
        """The log once `condition` holds of it. Raises TimeoutError."""
        async with asyncio.timeout(30):
            # What changes is a row of a database: there is nothing to await.
            while not condition(deliveries := await self.log(webhook_id)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return deliveries


@asynccontextmanager
async def opened(world: World, *, started: bool = True) -> AsyncIterator[World]:
    await world.open()
    try:
        if started:
            await world.dispatcher.start()
        yield world
    finally:
        await world.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def world(tmp_path: Path, receiver: Receiver) -> AsyncIterator[World]:
    async with opened(World(tmp_path)) as world:
        await world.webhooks.add(make_webhook(receiver.url))
        yield world


def statuses(deliveries: Sequence[Delivery]) -> list[str]:
    return [each.message.status.value for each in deliveries]


async def test_every_event_of_a_job_arrives_in_order_and_verifies(
    world: World, receiver: Receiver
) -> None:
    job = await world.create()
    await receiver.wait_for(1)
    job = await world.observe(job, stage="Downloading", percentage=10.0)
    await receiver.wait_for(3)
    await world.observe(job, State.COMPLETED, results={"highlights_count": 3})
    await receiver.wait_for(4)

    assert receiver.events == ["job.started", "job.stage_changed", "job.progress", "job.completed"]
    documents = [request.verify(SECRET) for request in receiver.requests]
    assert [document["sequence"] for document in documents] == [1, 2, 3, 4]
    assert documents[-1]["data"]["results"] == {"highlights_count": 3}
    assert [request.id for request in receiver.requests] == [each["id"] for each in documents]
    deliveries = await world.settled()
    assert statuses(deliveries) == ["succeeded"] * 4
    assert all(len(each.attempts) == 1 for each in deliveries)
    webhook = await world.webhooks.get("wh_1")
    assert webhook is not None
    assert webhook.last_success_at is not None


async def test_failing_receiver_gets_the_same_event_again_until_it_takes_it(
    world: World, receiver: Receiver
) -> None:
    receiver.script(Reply(500, body=b"not now"), Drop())
    await world.create()
    first, second, third = await receiver.wait_for(3)

    assert first.id == second.id == third.id
    assert first.body == second.body == third.body
    assert [each.attempt for each in (first, second, third)] == [1, 2, 3]
    assert third.verify(SECRET)
    (delivery,) = await world.settled()
    assert [(each.status_code, each.error_kind) for each in delivery.attempts] == [
        (500, "http_status"),
        (None, "connect"),
        (204, None),
    ]
    assert delivery.attempts[0].response_excerpt == "not now"


async def test_delivery_is_exhausted_after_its_retries_and_counted(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.always(Reply(503))
    settings = Webhooks(retry_delays=(0.01,) * 9, max_retries=3)
    async with opened(World(tmp_path, settings)) as world:
        await world.webhooks.add(make_webhook(receiver.url))
        await world.create()
        (delivery,) = await world.settled()
        webhook = await world.webhooks.get("wh_1")
    assert delivery.message.status is DeliveryStatus.EXHAUSTED
    assert len(delivery.attempts) == len(receiver.requests) == 4
    assert webhook is not None
    assert webhook.consecutive_failures == 4
    assert webhook.status is WebhookStatus.ACTIVE


async def test_410_disables_and_what_waited_is_skipped_not_lost(
    world: World, receiver: Receiver
) -> None:
    receiver.always(Reply(410))
    job = await world.create()
    await world.outbox.enqueue([make_message(50, job_id="j2", due_at=time.time() + 0.2)])
    deliveries = await world.settled()
    webhook = await world.webhooks.get("wh_1")
    assert webhook is not None
    assert (webhook.status, len(receiver.requests)) == (WebhookStatus.DISABLED, 1)
    assert statuses(deliveries) == ["exhausted", "skipped"]
    await world.observe(job, State.CANCELLED)
    assert len(await world.log()) == 2


async def test_later_event_waits_for_the_earlier_ones_first_attempt_only(
    world: World, receiver: Receiver
) -> None:
    receiver.script(Hang(), Reply(500))
    job = await world.create()
    await receiver.wait_for(1)
    await world.observe(job, State.COMPLETED)
    await world.create("j2")
    await receiver.wait_for(2)  # the other job's does not wait
    assert [each.envelope["data"]["job_id"] for each in receiver.requests] == ["j1", "j2"]
    receiver.release()
    await world.settled()
    own = [each for each in receiver.requests if each.envelope["data"]["job_id"] == "j1"]
    assert [each.event for each in own] == ["job.started", "job.completed"]


async def test_failing_earlier_event_does_not_block_a_later_one(
    tmp_path: Path, receiver: Receiver
) -> None:
    settings = Webhooks(retry_delays=(3600.0,), max_retries=1)
    receiver.fail(1)
    async with opened(World(tmp_path, settings)) as world:
        await world.webhooks.add(make_webhook(receiver.url))
        job = await world.create()
        await world.observe(job, State.COMPLETED)
        await receiver.wait_for(2)
    assert receiver.events == ["job.started", "job.completed"]


async def test_waiting_progress_gives_way_and_none_follows_the_end(
    world: World, receiver: Receiver
) -> None:
    receiver.script(Hang())
    job = await world.create()
    await receiver.wait_for(1)
    for percentage in range(5, 100, 5):
        job = await world.observe(job, percentage=float(percentage))
    await world.observe(job, State.COMPLETED)
    receiver.release()
    deliveries = await world.settled()

    assert receiver.events == ["job.started", "job.completed"]
    assert statuses(deliveries) == ["succeeded", *["superseded"] * 19, "succeeded"]


async def test_progress_is_tried_twice_at_most(tmp_path: Path, receiver: Receiver) -> None:
    async with opened(World(tmp_path)) as world:
        await world.webhooks.add(make_webhook(receiver.url, events=("job.progress",)))
        receiver.always(Reply(500))
        await world.observe(await world.create(), percentage=5.0)
        (delivery,) = await world.settled()
    assert delivery.message.status is DeliveryStatus.EXHAUSTED
    assert len(receiver.requests) == 2


async def test_hanging_endpoint_delays_none_of_fifty_healthy_ones(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.always(Hang(), path="/hang")
    async with opened(World(tmp_path), started=False) as world:
        await world.webhooks.add(make_webhook(receiver.url_of("/hang"), id="wh_hang"))
        for number in range(50):
            url = receiver.url_of(f"/{number}")
            await world.webhooks.add(make_webhook(url, id=f"wh_{number}"))
        for number in range(8):
            await world.create(f"j{number}")
        await world.dispatcher.start()
        await receiver.wait_until(lambda: len(receiver.requests) - len(receiver.at("/hang")) == 400)
        await receiver.wait_until(lambda: len(receiver.at("/hang")) == BRISK.per_endpoint)
        assert sorted(statuses(await world.log("wh_hang"))) == [
            *["in_flight"] * BRISK.per_endpoint,
            *["pending"] * BRISK.per_endpoint,
        ]


async def test_what_was_under_way_at_a_stop_is_delivered_after_it_with_the_same_id(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script(Hang())
    async with opened(World(tmp_path)) as world:
        await world.webhooks.add(make_webhook(receiver.url))
        await world.create()
        await receiver.wait_for(1)
    async with opened(World(tmp_path), started=False) as world:
        assert await world.jobs.void_leases() == 1
        await world.dispatcher.start()
        (delivery,) = await world.settled()
    first, second = receiver.requests
    assert (first.id, first.body, first.attempt) == (second.id, second.body, 1)
    assert delivery.message.status is DeliveryStatus.SUCCEEDED
    assert second.attempt == 2


async def test_stop_in_order_waits_for_the_answer(tmp_path: Path, receiver: Receiver) -> None:
    receiver.script(Hang())
    async with opened(World(tmp_path)) as world:
        await world.webhooks.add(make_webhook(receiver.url))
        await world.create()
        await receiver.wait_for(1)
        stopping = asyncio.create_task(world.dispatcher.stop(30.0))
        await asyncio.sleep(0)
        receiver.release()
        await stopping
        assert statuses(await world.log()) == ["succeeded"]


async def test_two_dispatchers_over_one_outbox_never_send_the_same_twice(
    world: World, receiver: Receiver
) -> None:
    second = Dispatcher(
        world.outbox, [world.sink], now=time.time, jitter=random.random, metrics=Metrics()
    )
    await second.start()
    try:
        await world.outbox.enqueue([make_message(n, job_id=f"j{n}") for n in range(200)])
        second.wake()
        world.dispatcher.wake()
        await world.settled()
    finally:
        await second.stop(0.0)
    assert Counter(each.id for each in receiver.requests) == {f"evt_{n}": 1 for n in range(200)}


async def test_retry_after_sets_when_the_next_attempt_is_due(
    world: World, receiver: Receiver
) -> None:
    receiver.always(Reply(429, {"Retry-After": "3600"}))
    before = time.time()
    await world.create()
    (delivery,) = await world.until(lambda log: statuses(log) == ["retrying"])
    assert before + 3600 <= delivery.message.due_at <= time.time() + 3600 * 1.2


async def test_redirect_to_a_metadata_address_is_not_followed(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.always(Reply(302, {"Location": "http://169.254.169.254/latest/"}))
    async with opened(World(tmp_path, Webhooks(max_retries=0))) as world:
        await world.webhooks.add(make_webhook(receiver.url))
        await world.create()
        (delivery,) = await world.settled()
    assert [each.status_code for each in delivery.attempts] == [302]
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("second", ["169.254.169.254", "10.0.0.1"])
async def test_rebinding_is_blocked_at_the_socket_and_audited(
    tmp_path: Path, receiver: Receiver, second: str
) -> None:
    zone = {"rebind.example": [["127.0.0.1"], [second]]}
    async with DnsServer(zone) as server:
        names = DnsResolver(server.port)
        slowly = Webhooks(retry_delays=(0.3,), max_retries=1)
        async with opened(World(tmp_path, slowly, names=names)) as world:
            await world.webhooks.add(make_webhook(f"http://rebind.example:{receiver.port}/"))
            receiver.script(Reply(500, {"Connection": "close"}))
            await world.create()
            await receiver.wait_for(1)
            forget_names(world)
            (delivery,) = await world.settled()
            entries, _ = await SqliteAuditLog(world.database).list(AuditQuery(webhook_id="wh_1"))
        assert server.asked["rebind.example"] == 2
    assert delivery.message.status is DeliveryStatus.BLOCKED
    last = delivery.attempts[-1]
    assert last.error_kind == "blocked_address"
    assert last.detail.startswith(f"{second} is ")
    assert [entry.action for entry in entries] == ["delivery.blocked"]
    assert entries[0].details["delivery_id"] == delivery.message.id
    assert len(receiver.requests) == 1
    counted = world.metrics.registry.get_sample_value(
        "gateway_delivery_attempts_total", {"sink": "webhook", "result": "blocked_address"}
    )
    assert counted == 1


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "168.63.129.16"])
async def test_metadata_address_is_never_reached_not_even_by_allow_list(
    tmp_path: Path, address: str
) -> None:
    everything = AddressRule.parse(("http",), (), any_port=True, allow=("0.0.0.0/0", "::/0"))
    async with DnsServer({"inside.example": [[address]]}) as server:
        world = World(tmp_path, rule=everything, names=DnsResolver(server.port))
        async with opened(world):
            await world.webhooks.add(make_webhook("http://inside.example/latest/meta-data"))
            await world.create()
            (delivery,) = await world.settled()
    assert delivery.message.status is DeliveryStatus.BLOCKED
    assert delivery.attempts[-1].detail == f"{address} is a cloud metadata service"


async def test_slow_receiver_is_not_overtaken_by_a_second_worker(world: World) -> None:
    async def just_within_the_deadline(_message: Message) -> Outcome:
        await asyncio.sleep(0.45)
        return Outcome(0.45, status_code=200)

    sinks = [ScriptedSink(just_within_the_deadline, deadline_seconds=0.5) for _ in range(2)]
    await world.dispatcher.stop(0.0)
    workers = [
        Dispatcher(
            world.outbox,
            [sink],
            now=time.time,
            jitter=random.random,
            metrics=Metrics(),
            lease_margin_seconds=0.2,
        )
        for sink in sinks
    ]
    await world.outbox.enqueue([make_message(n, job_id=f"j{n}") for n in range(12)])
    for worker in workers:
        await worker.start()
    try:
        await world.settled()
    finally:
        for worker in workers:
            await worker.stop(0.0)
    sent = [message.id for sink in sinks for message in sink.sent]
    assert sorted(sent) == sorted({f"dlv_{n}" for n in range(12)})


def forget_names(world: World) -> None:
    assert world.sink._session is not None
    connector = world.sink._session.connector
    assert isinstance(connector, aiohttp.TCPConnector)
    connector.clear_dns_cache()


async def test_rotated_secret_signs_beside_the_new_one_until_its_overlap_ends(
    world: World, receiver: Receiver
) -> None:
    new = "whsec_" + "QUJD" * 8
    overlap_end = time.time() + 3600
    rotated = make_webhook(
        receiver.url, secret=new, previous_secret=SECRET, previous_secret_expires_at=overlap_end
    )
    assert await world.webhooks.replace(rotated, 1)
    job = await world.create()
    await receiver.wait_for(1)
    assert await world.webhooks.replace(replace(rotated, previous_secret_expires_at=0.0), 2)
    await world.observe(job, State.CANCELLED)
    during, after = await receiver.wait_for(2)

    assert during.verify(SECRET) == during.verify(new)
    assert after.verify(new)
    assert len(after.headers["webhook-signature"].split()) == 1


async def test_faulty_receivers_get_everything_in_the_end_and_duplicates_share_their_id(
    world: World, receiver: Receiver
) -> None:
    chance = random.Random(7)
    number = 1000
    for n in range(10):
        await world.webhooks.add(make_webhook(receiver.url_of(f"/{n}"), id=f"wh_f{n}"))
    faults: list[Answer] = [Reply(500), Reply(429), Drop(), Reply(200, body=b"x" * 2_000_000)]
    for n in range(10):
        answers = [chance.choice(faults) if chance.random() < 0.1 else Reply() for _ in range(110)]
        receiver.script(*answers, path=f"/{n}")
    messages = [make_message(n, destination=f"wh_f{n % 10}", job_id=f"j{n}") for n in range(number)]
    await world.outbox.enqueue(messages)
    world.dispatcher.wake()
    for n in range(10):
        assert set(statuses(await world.settled(f"wh_f{n}"))) == {"succeeded"}

    times = Counter(each.id for each in receiver.requests)
    assert set(times) == {f"evt_{n}" for n in range(number)}
    duplicates = sum(times.values()) - number
    assert 0 < duplicates <= number * 0.2
    assert receiver.peak_open <= BRISK.concurrency


async def test_thousand_failures_do_not_come_back_in_one_burst(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.always(Reply(500))
    settings = Webhooks(retry_delays=(1000.0,), max_retries=1)
    async with opened(World(tmp_path, settings)) as world:
        await world.webhooks.add(make_webhook(receiver.url))
        at = time.time()
        await world.outbox.enqueue(
            [make_message(n, job_id=f"j{n}", created_at=at, due_at=at) for n in range(1000)]
        )
        world.dispatcher.wake()
        await receiver.wait_for(1000)
        await world.dispatcher.stop(30.0)
        waiting = [each.message.due_at for each in await world.log()]
    ahead = [due - at for due in waiting]
    assert min(ahead) >= 1000.0
    assert max(Counter(int(each / 10) for each in ahead).values()) < 200
    assert max(ahead) - min(ahead) > 150.0
