"""Convex: what coalescing saves, how fast an outage is made up for, what a cached history costs.

The deployment is `tests/convex_server`, the real functions over convex-test: its own speed bounds
the mutations a second, and a real deployment is a network away. Ratios hold, those figures do not.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import structlog

from gateway.core.job import Job, State
from tests.support.convex import ConvexServer, obstacle
from tests.support.convex_world import World, opened
from tests.support.system import KEY, AnalysisApi, GatewayProcess

UPDATE = "jobs:updateProgress"
HISTORY = "/api/v1/jobs/history?limit=100"


def run(quick: bool) -> dict[str, Any]:  # noqa: FBT001 - as every section's
    """Every measurement; a section of the results."""
    if (reason := obstacle()) is not None:
        raise RuntimeError(reason)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    return {"convex": asyncio.run(_run(quick=quick))}


async def _run(*, quick: bool) -> dict[str, float]:
    jobs, rounds = (40, 25) if quick else (200, 50)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder, ConvexServer() as server:
        async with opened(server, Path(folder)) as world:
            found |= await _coalescing(world, jobs, rounds)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        found |= await _catching_up(Path(folder), jobs, rounds // 5)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        found |= await _history(Path(folder), 150 if quick else 1500)
    return found


async def _moved(world: World, jobs: list[Job], rounds: int) -> None:
    """Let every job progress, round after round, as fast as the store takes it."""
    for turn in range(1, rounds + 1):
        percentage = 100.0 * turn / rounds
        jobs[:] = await asyncio.gather(*(world.observe(job, percentage=percentage) for job in jobs))


async def _emptied(world: World) -> None:
    """Return once nothing waits for Convex."""
    # What changes is a table: there is nothing to await.
    while (await world.outbox.next_due_at("convex")) is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def _coalescing(world: World, number: int, rounds: int) -> dict[str, float]:
    """Sustained progress: events recorded a second, and mutations sent for them."""
    jobs = [await world.create(f"j{at}") for at in range(number)]
    await world.settled()
    before = (await world.server.stats())["paths"][UPDATE]["received"]
    started = time.perf_counter()
    await _moved(world, jobs, rounds)
    recorded = time.perf_counter()
    await _emptied(world)
    ended = time.perf_counter()
    sent = (await world.server.stats())["paths"][UPDATE]["received"] - before
    rows = {row["jobId"]: row["sequence"] for row in await world.server.dump("jobs")}
    if rows != {job.id: job.sequence for job in jobs}:
        raise RuntimeError("Convex does not have the jobs' last states")
    events = number * rounds
    return {
        "events": events,
        "events_per_second": events / (recorded - started),
        "mutations": sent,
        "events_per_mutation": events / sent,
        "behind_the_last_event_seconds": ended - recorded,
    }


async def _catching_up(folder: Path, number: int, rounds: int) -> dict[str, float]:
    """An outage over the whole life of all jobs; then, how long until Convex has their ends."""
    server = ConvexServer()
    with server:
        pass  # it chooses its port, and goes
    async with opened(server, folder, retry_delays=(0.5, 1.0)) as world:
        jobs = [await world.create(f"j{at}") for at in range(number)]
        await _moved(world, jobs, rounds)
        await asyncio.gather(*(world.observe(job, State.COMPLETED) for job in jobs))
        with server:
            started = time.perf_counter()
            await _emptied(world)
            seconds = time.perf_counter() - started
            ends = [row["status"] for row in await server.dump("jobs")]
            calls = sum(each["received"] for each in (await server.stats())["paths"].values())
    if ends != ["completed"] * number:
        raise RuntimeError("Convex does not have the jobs' ends")
    return {
        "outage_jobs": number,
        "outage_events": number * (rounds + 2),
        "catch_up_seconds": seconds,
        "catch_up_mutations": calls,
    }


async def _history(folder: Path, requests: int) -> dict[str, float]:
    """CPU time of a page of 100 jobs, from memory and from the store."""
    unlimited: dict[str, Any] = {"rate_limits": {"limits": {}}}
    async with (
        AnalysisApi(speed=1000) as api,
        GatewayProcess(folder, api.url, policies=unlimited) as gateway,
        aiohttp.ClientSession(headers={"X-API-Key": KEY}) as session,
    ):
        for _ in range(110):
            await gateway.finish(await gateway.create())
        url = gateway.public + HISTORY
        cached = await _cost(session, gateway.pid, url, {}, requests)
        uncached = await _cost(session, gateway.pid, url, {"Cache-Control": "no-cache"}, requests)
    return {
        "history_cached_microseconds": cached,
        "history_uncached_microseconds": uncached,
        "history_uncached_over_cached": uncached / cached,
    }


async def _cost(
    session: aiohttp.ClientSession, pid: int, url: str, headers: dict[str, str], requests: int
) -> float:
    """CPU microseconds a request, one after the other."""
    process = psutil.Process(pid)
    await _ask(session, url, headers, 20)
    before = process.cpu_times()
    await _ask(session, url, headers, requests)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / requests * 1e6


async def _ask(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], requests: int
) -> None:
    for _ in range(requests):
        async with session.get(url, headers=headers) as response:
            if response.status != 200 or b'"jobs"' not in await response.read():
                raise RuntimeError(f"{url} answered {response.status}")
