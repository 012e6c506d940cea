"""Whoever can know of a job's change is given no answer from before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway.core.job import JobChange, Observation, State
from gateway.core.outbox import Message
from gateway.store.job import JobStore, TimelineEntry
from tests.support.inside import GatewayInside, StatusUpstream
from tests.support.system import eventually

# Polls of its own come when the test is over: what happens is what the test makes happen.
RARELY = {"watch": {"source": "poll", "poll": {"min": "1h", "max": "1h"}}}


@pytest.fixture
async def upstream() -> AsyncIterator[StatusUpstream]:
    async with StatusUpstream() as server:
        yield server


@pytest.fixture
async def gateway(tmp_path: Path, upstream: StatusUpstream) -> AsyncIterator[GatewayInside]:
    async with GatewayInside(tmp_path, upstream.url, jobs=RARELY) as inside:
        yield inside


class HeldUp:
    """A store whose commits are there for all to read, while who made them is not told yet."""

    def __init__(self, store: JobStore) -> None:
        self.tell = asyncio.Event()
        self.committed = asyncio.Event()
        self._record = store.record

    async def record(
        self, change: JobChange, timeline: Sequence[TimelineEntry], messages: Sequence[Message]
    ) -> bool:
        done = await self._record(change, timeline, messages)
        self.committed.set()
        await self.tell.wait()
        return done


async def known(gateway: GatewayInside, upstream: StatusUpstream) -> str:
    """A job that runs, and whose status is in the cache."""
    job_id = await gateway.create()
    upstream.put(job_id, "Transcribing", 40)

    async def is_known() -> bool:
        answer = await gateway.request("GET", f"/api/v1/analysis/{job_id}/status")
        is_hit = answer.headers["Cache-Status"].startswith("gateway; hit")
        return is_hit and answer.document["status"] == "Transcribing"

    await eventually("the status is in the cache", is_known)
    return job_id


async def end(gateway: GatewayInside, upstream: StatusUpstream, job_id: str) -> None:
    """The job completes, and the gateway sees it."""
    upstream.put(job_id, "Completed", 100)
    inside = gateway.gateway
    seen = Observation(job_id, inside.front.now(), state=State.COMPLETED, results={})
    await inside.behind.tracker.observe(seen, "poll")


async def test_a_poll_shows_what_the_timeline_shows_however_soon_it_comes(
    gateway: GatewayInside, upstream: StatusUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await known(gateway, upstream)
    store = gateway.gateway.stores.jobs
    held = HeldUp(store)
    monkeypatch.setattr(store, "record", held.record)
    ending = asyncio.create_task(end(gateway, upstream, job_id))
    await held.committed.wait()

    assert await gateway.ended(job_id)
    assert (await gateway.status(job_id))["status"] == "Completed"

    held.tell.set()
    await ending


async def test_a_poll_under_way_when_the_job_ends_shows_the_end(
    gateway: GatewayInside, upstream: StatusUpstream
) -> None:
    job_id = await known(gateway, upstream)
    upstream.gate.clear()
    before = upstream.asked["status"]
    poll = asyncio.create_task(
        gateway.request(
            "GET", f"/api/v1/analysis/{job_id}/status", headers={"Cache-Control": "no-cache"}
        )
    )

    async def is_under_way() -> bool:
        return upstream.asked["status"] > before

    await eventually("the upstream has made its answer", is_under_way)
    await end(gateway, upstream, job_id)
    upstream.gate.set()

    assert (await poll).document["status"] == "Completed"
