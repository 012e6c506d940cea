"""One run: a warm-up, and what the gateway holds then; the load, disturbed, and what it holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ledger, owner
from benchmarks.ledger import KINDS, Ledger
from benchmarks.owner import KEYS
from benchmarks.receivers import Receivers
from benchmarks.soak.client import Client
from benchmarks.soak.disturbance import Disturbances, limits
from benchmarks.soak.load import Load, Rates
from benchmarks.soak.outage import Outages
from benchmarks.soak.vitals import Held, Lag, Vitals, growth
from tests.support.convex import ConvexServer, obstacle
from tests.support.system import AnalysisApi, GatewayProcess, eventually
from tests.support.valkey import Valkey, find_server

SICK_SHARE = 0.2  # with ten retries, one message in fifty million would not come
CONVEX_SECONDS = 120.0
DOWN_SECONDS = 60.0
SPEED = 2.5  # a job takes 5.6 s


@dataclass(frozen=True, slots=True)
class Plan:
    """For how long, how often it is disturbed, and by how many clients it is asked."""

    seconds: float
    warm_up_seconds: float
    disturbances: int
    rates: Rates
    seed: int


@dataclass(frozen=True, slots=True)
class Report:
    """What the run came to. `failures` are sentences: none, and the run went well."""

    seconds: float
    requests: Mapping[str, int]
    expected_errors: Mapping[str, int]
    unexpected_errors: Mapping[str, int]
    examples: tuple[str, ...]
    disturbances: Mapping[str, int]
    skipped: tuple[str, ...]
    jobs: int
    events: ledger.Figures
    convex_behind: int | None
    start: Held
    end: Held
    peak_memory_bytes: int
    peak_descriptors: int
    lag: Lag
    failures: tuple[str, ...]


@dataclass(slots=True)
class _World:
    """Every process of the run."""

    gateway: GatewayProcess
    upstream: AnalysisApi
    receivers: Receivers
    redis: Valkey | None
    convex: ConvexServer | None
    skipped: list[str]


async def run(plan: Plan, folder: Path) -> Report:
    """Play the story in `folder`; raises AssertionError for a history that is not one."""
    async with AsyncExitStack() as stack:
        world = await _start(stack, folder, plan.seed)
        outages = Outages()
        client = await stack.enter_async_context(Client(world.gateway, outages))
        return await _Story(plan, world, outages, client).play()


async def _start(stack: AsyncExitStack, folder: Path, seed: int) -> _World:
    skipped = []
    redis = convex = None
    try:
        find_server()
        redis = stack.enter_context(Valkey(folder / "redis", append_only=True))
    except FileNotFoundError as error:
        skipped.append(f"the Redis outage, jobs are in SQLite instead: {error}")
    if (reason := obstacle()) is None:
        convex = stack.enter_context(ConvexServer())
    else:
        skipped.append(f"Convex: {reason}")
    receivers = await stack.enter_async_context(Receivers(seed, SICK_SHARE))
    upstream = await stack.enter_async_context(AnalysisApi(speed=SPEED, create_seconds=0))
    settings = owner.settings(redis.url if redis else None)
    settings["policies"]["rate_limits"] = limits(0)
    settings["jobs"]["watch"]["lost_after"] = "2s"
    if convex is not None:
        settings["convex"] = {"url": convex.url, "retry_delays": ["100ms", "200ms"]}
        settings["environment"]["CONVEX_DEPLOY_KEY"] = convex.deploy_key
    own = folder / "gateway"
    own.mkdir()
    gateway = GatewayProcess(own, upstream.url, **settings)
    await stack.enter_async_context(gateway)
    return _World(gateway, upstream, receivers, redis, convex, skipped)


class _Story:
    def __init__(self, plan: Plan, world: _World, outages: Outages, client: Client) -> None:
        self._plan = plan
        self._world = world
        self._client = client
        self._ledger = Ledger(world.receivers, self._read)
        self._load = Load(client, self._ledger, plan.rates, plan.seed)
        self._vitals = Vitals(world.gateway)
        self._disturbances = Disturbances(
            world.gateway, world.upstream, world.redis, outages, self._load
        )

    async def play(self) -> Report:
        """Warm up, measure, load and disturb, and measure again."""
        plan = self._plan
        await self._register()
        await self._warm_up()
        start = await self._settled()
        began = time.monotonic()
        watch = asyncio.create_task(self._vitals.watch())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load.run(plan.seconds))
            group.create_task(self._disturbances.run(plan.seconds, plan.disturbances))
        watch.cancel()
        await asyncio.wait([watch])
        seconds = time.monotonic() - began
        events = await self._ledger.figures()
        behind = await self._convex_behind()
        end = await self._settled()
        failures = [*self._failures(events, behind), *growth(start, end)]
        if not watch.cancelled():
            failures.append(f"the admin listener did not answer: {watch.exception()!r}")
        return Report(
            seconds=round(seconds, 1),
            requests=dict(sorted(self._client.requests.items())),
            expected_errors=dict(sorted(self._client.expected.items())),
            unexpected_errors=dict(sorted(self._client.unexpected.items())),
            examples=tuple(self._client.examples),
            disturbances=dict(self._disturbances.counts),
            skipped=tuple(self._world.skipped),
            jobs=len(self._ledger.jobs),
            events=events,
            convex_behind=behind,
            start=start,
            end=end,
            peak_memory_bytes=self._vitals.peak_memory_bytes,
            peak_descriptors=self._vitals.peak_descriptors,
            lag=self._vitals.lag(),
            failures=tuple(failures),
        )

    async def _warm_up(self) -> None:
        """Until pools and caches have their size; its jobs are no part of the figures."""
        warm = Ledger(self._world.receivers, self._read)
        load = Load(self._client, warm, self._plan.rates, self._plan.seed)
        await load.run(self._plan.warm_up_seconds)
        await warm.figures()

    def _failures(self, events: ledger.Figures, behind: int | None) -> Iterator[str]:
        """What must not be, a sentence each."""
        if unexpected := self._client.unexpected.total():
            yield f"{unexpected} errors that no outage explains"
        if events.lost:
            yield f"{events.lost} events lost"
        if behind:
            yield f"{behind} jobs that Convex does not know to their end"

    async def _settled(self) -> Held:
        """What the gateway holds at rest, its connections to all but Redis closed by the others."""
        world = self._world
        await self._vitals.idle()
        await self._client.hang_up()
        await world.receivers.restart()
        await world.upstream.stop()
        if world.convex is not None:
            world.convex.stop()
        held = await self._vitals.held()
        await world.upstream.start()
        if world.convex is not None:
            world.convex.start()
        return held

    async def _register(self) -> None:
        """A webhook of each owner, to a receiver of its own."""
        for number, key in enumerate(KEYS):
            document = {"url": self._world.receivers.url(number), "events": KINDS}
            answer = await self._world.gateway.request(
                "POST", "/api/v1/webhooks", document, key=key
            )
            assert answer.status == 201, answer.body

    async def _read(self, key: str, path: str) -> Any:
        found: Any = None

        async def is_there() -> bool:
            nonlocal found
            answer = await self._world.gateway.request("GET", path, key=key)
            found = answer.document if answer.status == 200 else None
            return found is not None

        await eventually(f"{path} is there", is_there, DOWN_SECONDS)
        return found

    async def _convex_behind(self) -> int | None:
        """How many jobs' rows do not come to their last event; None where there is no Convex."""
        convex, ends, behind = self._world.convex, self._ledger.ends, -1
        if convex is None:
            return None
        deadline = time.monotonic() + CONVEX_SECONDS
        while behind and time.monotonic() < deadline:
            rows = {row["jobId"]: row["sequence"] for row in await convex.dump("jobs")}
            behind = sum(rows.get(job_id) != sequence for job_id, sequence in ends.items())
            await asyncio.sleep(0.2)
        return behind
