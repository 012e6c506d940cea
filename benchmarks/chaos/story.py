"""One run: jobs are created and followed while gateways, and Redis, are killed with -9."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.chaos.receivers import COUNT, Receivers
from gateway.core.credential import format_key, hash_key
from tests.support.system import SECRET_KEY, TERMINAL, VIDEO, AnalysisApi, GatewayProcess
from tests.support.valkey import Valkey

EVENTS_OF_A_JOB = 7  # its start, most of seven stages, its end
KINDS = sorted({"job.started", "job.stage_changed", *TERMINAL})  # progress may be left out
CREATORS = 8
PAUSE_SECONDS = 0.6  # of each creator: some 120 events a second, which the receivers can take
SETTLE_SECONDS = 90.0  # without any message taken: what has not come by then never will
_KEYS = tuple(format_key(f"chaos-owner-{number:02}-test-key!!".encode()) for number in range(COUNT))
# As short as they go: a claim of a gateway that died ends after 0.5 + 4 + 6 s.
_SETTINGS: Mapping[str, Any] = {
    "jobs": {"watch": {"lease": "3s", "lost_after": "10s"}},
    "webhooks": {
        "timeout": "500ms",
        "max_timeout": "500ms",
        "lease_margin": "6s",
        "max_retries": 10,
        "retry_delays": ["100ms", "200ms", "400ms", *["1s"] * 7],
    },
    "policies": {
        "auth": {
            "entries": [
                {
                    "id": f"chaos-{number}",
                    "owner": f"owner-{number}",
                    "scopes": ["jobs:read", "jobs:write", "webhooks"],
                    "hash": hash_key(key),
                }
                for number, key in enumerate(_KEYS)
            ]
        }
    },
    "environment": {"WEBHOOK_SECRET_KEY": SECRET_KEY},
}


@dataclass(frozen=True, slots=True)
class Plan:
    """`events` are about how many messages there will be; `kills` how often a gateway dies."""

    store: str
    events: int
    kills: int
    seed: int


@dataclass(frozen=True, slots=True)
class Figures:
    """`sent` are the events recorded; times are from an event's observation to its receipt."""

    sent: int
    delivered: int
    lost: int
    duplicates: int
    p50_seconds: float
    p99_seconds: float


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
    settings, number = dict(_SETTINGS), 1
    if redis is not None:
        number = 2
        settings |= {
            "store": {"kind": "redis"},
            "redis": {"url": "${REDIS_URL}"},
            "upstream": {"shared": True},
            "environment": {**_SETTINGS["environment"], "REDIS_URL": redis.url},
        }
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
        self._jobs: list[tuple[str, str]] = []  # the owner's key, and the job's id

    async def play(self) -> Figures:
        for number, key in enumerate(_KEYS):
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
        recorded = await self._recorded()
        await self._settled(recorded)
        return self._figures(recorded)

    async def _create(self, number: int) -> None:
        """Create jobs, each for the next owner, through the gateways in turn."""
        while self._left > 0:
            self._left -= 1
            key = _KEYS[self._left % COUNT]
            document = await self._ask(
                number + self._left, "POST", "/api/v1/analysis", key, {"url": VIDEO}, 200
            )
            self._jobs.append((key, document["job_id"]))
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

    async def _recorded(self) -> dict[str, float]:
        """When each event of the kinds that are sent was observed, by its id."""
        found: dict[str, float] = {}
        for key, job_id in self._jobs:
            timeline = await self._finished(key, job_id)
            sequences = [event["sequence"] for event in timeline]
            assert sequences == list(range(1, len(timeline) + 1)), (job_id, sequences)
            ends = [event["type"] for event in timeline if event["type"] in TERMINAL]
            assert ends == [timeline[-1]["type"]], (job_id, ends)
            found |= {
                event["id"]: datetime.fromisoformat(event["timestamp"]).timestamp()
                for event in timeline
                if event["type"] in KINDS
            }
        return found

    async def _finished(self, key: str, job_id: str) -> list[Any]:
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                document = await self._ask(
                    0, "GET", f"/api/v1/jobs/{job_id}/events", key, None, 200
                )
                timeline: list[Any] = document["events"]
                if timeline and timeline[-1]["type"] in TERMINAL:
                    return timeline
                await asyncio.sleep(0.1)

    async def _settled(self, recorded: Mapping[str, float]) -> None:
        """Until all have been taken, or none has been for long."""
        seen, since = -1, time.monotonic()
        while recorded.keys() - self._receivers.taken.keys():
            if len(self._receivers.taken) != seen:
                seen, since = len(self._receivers.taken), time.monotonic()
            if time.monotonic() - since > SETTLE_SECONDS:
                return
            await asyncio.sleep(0.1)

    def _figures(self, recorded: Mapping[str, float]) -> Figures:
        taken, first_at = self._receivers.taken, self._receivers.first_at
        delivered = recorded.keys() & taken.keys()
        took = sorted(first_at[message] - recorded[message] for message in delivered)
        return Figures(
            sent=len(recorded),
            delivered=len(delivered),
            lost=len(recorded) - len(delivered),
            duplicates=sum(taken[message] - 1 for message in delivered),
            p50_seconds=round(_quantile(took, 0.5), 3),
            p99_seconds=round(_quantile(took, 0.99), 3),
        )

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


def _quantile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
