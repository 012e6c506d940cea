"""One run: jobs are created and followed while gateways, and Redis, are killed with -9."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import owner
from benchmarks.ledger import KINDS, SETTLE_SECONDS, Figures, Ledger
from benchmarks.owner import KEYS
from benchmarks.receivers import COUNT, Receivers
from tests.support.system import VIDEO, AnalysisApi, GatewayProcess
from tests.support.valkey import Valkey

EVENTS_OF_A_JOB = 7  # its start, most of seven stages, its end
CREATORS = 8
PAUSE_SECONDS = 0.6  # of each creator: some 120 events a second, which the receivers can take


@dataclass(frozen=True, slots=True)
class Plan:
    """`events` are about how many messages there will be; `kills` how often a gateway dies."""

    store: str
    events: int
    kills: int
    seed: int


async def run(plan: Plan, folder: Path) -> Figures:
    """Play the story in `folder`; raises AssertionError for a history that is not one."""
    async with AsyncExitStack() as stack:
        receivers = await stack.enter_async_context(Receivers(plan.seed))
        api = await stack.enter_async_context(AnalysisApi(speed=8, create_seconds=0))
        redis = None
        if plan.store == "redis":
            redis = stack.enter_context(Valkey(folder / "redis", append_only=True))
        gateways = await _start(stack, folder, api.url, redis)
        story = _Story(plan, receivers, gateways, redis)
        return await story.play()


async def _start(
    stack: AsyncExitStack, folder: Path, upstream: str, redis: Valkey | None
) -> list[GatewayProcess]:
    settings = owner.settings(redis.url if redis else None)
    number = 2 if redis else 1
    gateways = []
    for each in range(number):
        own = folder / f"gateway-{each}"
        own.mkdir()
        gateways.append(GatewayProcess(own, upstream, **settings))
        await stack.enter_async_context(gateways[-1])
    return gateways


class _Story:
    def __init__(
        self,
        plan: Plan,
        receivers: Receivers,
        gateways: Sequence[GatewayProcess],
        redis: Valkey | None,
    ) -> None:
        self._plan = plan
        self._receivers = receivers
        self._gateways = gateways
        self._redis = redis
        self._random = random.Random(plan.seed)
        self._left = -(-plan.events // EVENTS_OF_A_JOB)
        self._ledger = Ledger(receivers, self._read)

    async def play(self) -> Figures:
        for number, key in enumerate(KEYS):
            await self._ask(
                0,
                "POST",
                "/api/v1/webhooks",
                key,
                {"url": self._receivers.url(number), "events": KINDS},
                201,
            )
        async with asyncio.TaskGroup() as group:
            for number in range(CREATORS):
                group.create_task(self._create(number))
            group.create_task(self._disturb())
        return await self._ledger.figures()

    async def _create(self, number: int) -> None:
        """Create jobs, each for the next owner, through the gateways in turn."""
        while self._left > 0:
            self._left -= 1
            key = KEYS[self._left % COUNT]
            document = await self._ask(
                number + self._left, "POST", "/api/v1/analysis", key, {"url": VIDEO}, 200
            )
            self._ledger.add(key, document["job_id"])
            await asyncio.sleep(PAUSE_SECONDS)

    async def _disturb(self) -> None:
        """Kill a gateway whenever the next part of the messages has been taken; Redis at half."""
        parts = self._plan.kills + 1
        for part in range(1, parts):
            await self._until_taken(self._plan.events * part // (parts + 1))
            victim = self._random.choice(self._gateways)
            await victim.kill()
            if self._redis is not None and part == parts // 2:
                self._redis.kill()
                await asyncio.to_thread(self._redis.start)
            await victim.start()

    async def _until_taken(self, number: int) -> None:
        seen, since = -1, time.monotonic()
        while (taken := len(self._receivers.taken)) < number:
            if taken != seen:
                seen, since = taken, time.monotonic()
            if time.monotonic() - since > SETTLE_SECONDS:
                return  # the figures say what has not come
            await asyncio.sleep(0.02)

    async def _read(self, key: str, path: str) -> Any:
        return await self._ask(0, "GET", path, key, None, 200)

    async def _ask(
        self, turn: int, method: str, path: str, key: str, document: Any, wanted: int
    ) -> Any:
        """The answer with the status wanted; a gateway that is down or refuses is asked again."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                gateway = self._gateways[turn % len(self._gateways)]
                try:
                    answer = await gateway.request(method, path, document, key=key)
                except (aiohttp.ClientError, ConnectionError, TimeoutError):
                    turn += 1  # perhaps the other one lives
                    await asyncio.sleep(0.1)
                    continue
                if answer.status == wanted:
                    return answer.document
                assert answer.status >= 500, answer.body
                turn += 1
                await asyncio.sleep(0.1)
