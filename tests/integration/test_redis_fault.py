"""The stores on a Redis that is away, late, read-only or full: told apart from any other error.

What was carried out although its answer was lost is found when it is tried again, and done once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.core.audit import AuditEntry
from gateway.core.error import StoreUnavailable
from gateway.core.outbox import Claim
from gateway.core.retry import Delivered
from gateway.settings.store import Redis
from gateway.store.audit import AuditQuery
from gateway.store.job import JobQuery
from gateway.store.outbox import DeliveryQuery
from gateway.store.redis.audit import RedisAuditLog
from gateway.store.redis.client import RedisClient
from gateway.store.redis.job import RedisJobStore
from gateway.store.redis.layout import Layout
from gateway.store.redis.outbox import RedisOutbox
from gateway.store.redis.webhook import RedisWebhookStore
from gateway.store.webhook import WebhookQuery
from tests.support.relay import Relay
from tests.support.store import (
    NOW,
    attempt_at,
    message,
    messages_of,
    new_job,
    next_change,
    timeline_of,
    webhook,
)
from tests.support.valkey import Valkey


@dataclass
class World:
    """One server of the test's own, and the stores on it."""

    server: Valkey
    relay: Relay
    client: RedisClient
    jobs: RedisJobStore
    outbox: RedisOutbox
    webhooks: RedisWebhookStore
    audit: RedisAuditLog

    async def until_answered(self) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    await self.client.command("SET", self.client.key("probe"), 1)
                except StoreUnavailable:
                    await asyncio.sleep(0.02)
                else:
                    return


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path, append_only=True) as running:
        yield running


@pytest.fixture
async def relay(server: Valkey) -> AsyncIterator[Relay]:
    async with Relay(server.port) as carrying:
        yield carrying


@pytest.fixture
async def world(server: Valkey, relay: Relay) -> AsyncIterator[World]:
    url = SecretStr(f"redis://127.0.0.1:{relay.port}")
    client = RedisClient(Redis(url=url, timeout=0.3))
    layout = Layout(client)
    jobs = RedisJobStore(client, layout)
    yield World(
        server,
        relay,
        client,
        jobs,
        RedisOutbox(client, layout),
        RedisWebhookStore(client, layout, jobs),
        RedisAuditLog(client, layout),
    )
    await client.close()


Call = Callable[[World], Awaitable[object]]
JOB_CLAIM = Claim(new_job().job, 1, NOW + 30)
MESSAGE_CLAIM = Claim(message(1, attempt=1), 1, NOW + 30)
READS: dict[str, Call] = {
    "jobs.get": lambda w: w.jobs.get("job-1"),
    "jobs.latest_of_subject": lambda w: w.jobs.latest_of_subject("v"),
    "jobs.unfinished": lambda w: w.jobs.unfinished(),
    "jobs.list": lambda w: w.jobs.list(JobQuery()),
    "jobs.timeline": lambda w: w.jobs.timeline("job-1"),
    "outbox.next_due_at": lambda w: w.outbox.next_due_at("webhook"),
    "outbox.deliveries": lambda w: w.outbox.deliveries(DeliveryQuery("wh_1")),
    "outbox.get": lambda w: w.outbox.get("dlv_1"),
    "outbox.backlog": lambda w: w.outbox.backlog(),
    "webhooks.get": lambda w: w.webhooks.get("wh_1"),
    "webhooks.list": lambda w: w.webhooks.list(WebhookQuery()),
    "webhooks.candidates": lambda w: w.webhooks.candidates("alice", "job-1"),
    "webhooks.count": lambda w: w.webhooks.count("alice"),
    "audit.list": lambda w: w.audit.list(AuditQuery()),
}
WRITES: dict[str, Call] = {
    "jobs.record": lambda w: w.jobs.record(new_job("new"), timeline_of(new_job("new")), ()),
    "outbox.enqueue": lambda w: w.outbox.enqueue([message(1)]),
    "webhooks.add": lambda w: w.webhooks.add(webhook()),
    "audit.append": lambda w: w.audit.append([AuditEntry(NOW, "webhook.tested", "wh_1")]),
}
OTHERS: dict[str, Call] = {
    "jobs.claim_due": lambda w: w.jobs.claim_due(None, 10, NOW, 30.0),
    "jobs.renew": lambda w: w.jobs.renew([JOB_CLAIM], NOW + 60),
    "jobs.release": lambda w: w.jobs.release(JOB_CLAIM, NOW),
    "outbox.claim": lambda w: w.outbox.claim("webhook", 10, NOW, 30.0),
    "outbox.settle": lambda w: w.outbox.settle(
        MESSAGE_CLAIM, Delivered(), attempt_at(MESSAGE_CLAIM, NOW), NOW
    ),
    "outbox.cancel": lambda w: w.outbox.cancel("wh_1", NOW),
    "outbox.prune": lambda w: w.outbox.prune(NOW),
    "outbox.drop_payloads": lambda w: w.outbox.drop_payloads(NOW),
    "webhooks.replace": lambda w: w.webhooks.replace(webhook(), 1),
    "webhooks.delete": lambda w: w.webhooks.delete("wh_1"),
    "webhooks.note_outcome": lambda w: w.webhooks.note_outcome("wh_1", True, NOW),
    "webhooks.disable": lambda w: w.webhooks.disable("wh_1", "410", NOW),
    "webhooks.prune": lambda w: w.webhooks.prune(NOW, NOW),
    "audit.prune": lambda w: w.audit.prune(NOW),
}


async def refusal(call: Call, world: World) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await call(world)
    return caught.value.detail


async def test_every_call_says_that_the_server_is_away(world: World) -> None:
    await world.client.ping()
    world.server.kill()
    for call in {**READS, **WRITES, **OTHERS}.values():
        assert f"127.0.0.1:{world.relay.port}" in await refusal(call, world)


async def test_every_call_ends_while_the_server_is_late(world: World) -> None:
    await world.client.ping()
    world.server.pause()
    calls = {**READS, **WRITES, **OTHERS}.values()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*(call(world) for call in calls), return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}


async def test_read_only_server_is_read_and_refuses_writes(world: World) -> None:
    await world.jobs.record(new_job(), (), ())
    world.server.execute("REPLICAOF", "127.0.0.1", 1)
    for name, call in WRITES.items():
        assert "replica" in await refusal(call, world), name
    assert await world.jobs.get("job-1") is not None
    world.server.execute("REPLICAOF", "NO", "ONE")
    assert await world.webhooks.add(webhook())


async def test_full_server_keeps_what_it_has_and_refuses_more(world: World) -> None:
    await world.jobs.record(new_job(), (), ())
    world.server.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")
    world.server.execute("CONFIG", "SET", "maxmemory", 1)
    for name, call in WRITES.items():
        assert "noeviction" in await refusal(call, world), name
    assert await world.jobs.get("job-1") is not None
    assert await world.jobs.list(JobQuery())


async def test_change_whose_answer_was_lost_is_made_once(world: World) -> None:
    await world.client.ping()
    await world.jobs.record(new_job("known"), (), ())  # the script is there: it is carried out
    world.relay.mute()
    change = new_job()
    with pytest.raises(StoreUnavailable):
        await world.jobs.record(change, timeline_of(change), messages_of(change))
    world.relay.mend()
    await world.until_answered()
    assert not await world.jobs.record(change, timeline_of(change), messages_of(change))
    job = await world.jobs.get("job-1")
    assert job is not None
    assert job.version == 1
    assert [entry.sequence for entry in await world.jobs.timeline("job-1")] == [1]
    assert len(await world.outbox.claim("webhook", 10, NOW, 30.0)) == 1


async def test_verdict_whose_answer_was_lost_is_recorded_once(world: World) -> None:
    await world.outbox.settle(MESSAGE_CLAIM, Delivered(), attempt_at(MESSAGE_CLAIM, NOW), NOW)
    await world.outbox.enqueue([message(1)])
    (held,) = await world.outbox.claim("webhook", 1, NOW, 30.0)
    world.relay.mute()
    with pytest.raises(StoreUnavailable):
        await world.outbox.settle(held, Delivered(), attempt_at(held, NOW), NOW)
    world.relay.mend()
    await world.until_answered()
    assert not await world.outbox.settle(held, Delivered(), attempt_at(held, NOW), NOW)
    delivery = await world.outbox.get(message(1).id)
    assert delivery is not None
    assert len(delivery.attempts) == 1


async def test_late_observer_with_an_old_version_changes_nothing(world: World) -> None:
    await world.jobs.record(new_job(), (), ())
    old = await world.jobs.get("job-1")
    assert old is not None
    for at, percentage in ((1, 10.0), (2, 20.0)):
        job = await world.jobs.get("job-1")
        assert job is not None
        change = next_change(job, NOW + at, percentage=percentage)
        assert await world.jobs.record(change, timeline_of(change), ())
    late = next_change(old, NOW + 9, percentage=90.0)
    assert not await world.jobs.record(late, timeline_of(late), [message(9)])
    assert await world.outbox.get(message(9).id) is None


async def test_killed_server_comes_back_with_all_that_was_answered(world: World) -> None:
    for number in range(50):
        change = new_job(f"job-{number}")
        assert await world.jobs.record(change, timeline_of(change), messages_of(change))
    world.server.kill()
    world.server.start()
    await world.until_answered()
    assert len(await world.jobs.unfinished()) == 50
    (line,) = await world.outbox.backlog()
    assert line.waiting == 50
