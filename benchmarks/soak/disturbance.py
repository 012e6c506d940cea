"""What happens under the load: policies change, the upstream restarts, Redis is away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.soak.load import Load
from benchmarks.soak.outage import REDIS, UPSTREAM, Outages
from tests.support.system import AnalysisApi, GatewayProcess, eventually
from tests.support.valkey import Valkey

AWAY_SECONDS = 3.0
LIMIT = 10**6  # never reached: limits are counted, and nobody is refused


def limits(turn: int) -> dict[str, Any]:
    """The limits of the `turn`th set of policies; each set differs from the one before."""
    window = {"window": "60s", "by": ["key"]}
    return {"limits": {"default-per-key": {"limit": LIMIT + turn, **window}}}


class Disturbances:
    """Disturbs in turn; `counts` says what was done how often."""

    def __init__(
        self,
        gateway: GatewayProcess,
        upstream: AnalysisApi,
        redis: Valkey | None,
        outages: Outages,
        load: Load,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._gateway = gateway
        self._upstream = upstream
        self._redis = redis
        self._outages = outages
        self._load = load
        self._turn = 0

    async def run(self, seconds: float, number: int) -> None:
        """Spread `number` disturbances, after each kind of which all begins anew, over the time."""
        kinds: Sequence[Callable[[], Awaitable[None]]] = (
            self.reload,
            self.restart_upstream,
            self.refuse,
            *((self.lose_redis, self.reload, self.pause_redis) if self._redis else ()),
        )
        pause = seconds / (number + 1)
        for turn in range(number):
            await asyncio.sleep(pause)
            await kinds[turn % len(kinds)]()

    async def reload(self) -> None:
        """Put other policies in force, and wait until they are."""
        before = await self._policies("gateway_policy_generation")
        self._turn += 1
        self._write(yaml.safe_dump(limits(self._turn)))
        await self._until("new policies are in force", "gateway_policy_generation", before + 1)
        self.counts["policy reloads"] += 1

    async def refuse(self) -> None:
        """Offer policies that are none: the last good ones stay. Then good ones again."""
        self._write("limits: {default-per-key: {limit: many}}\n")
        await self._until("bad policies are refused", "gateway_policies_refused", 1)
        self.counts["policy reloads refused"] += 1
        await self.reload()

    async def restart_upstream(self) -> None:
        """The upstream dies, is away, and comes back without its jobs."""
        with self._outages.during(UPSTREAM):
            await self._upstream.stop()
            self._load.life += 1
            await asyncio.sleep(AWAY_SECONDS)
            await self._upstream.start()
        self.counts["upstream restarts"] += 1

    async def lose_redis(self) -> None:
        """Redis is killed with -9, is away, and comes back with its file."""
        async with self._redis_away("Redis outages") as redis:
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(redis.start)

    async def pause_redis(self) -> None:
        """Redis keeps its connections, and answers nothing."""
        async with self._redis_away("Redis pauses") as redis:
            redis.pause()
            await asyncio.sleep(AWAY_SECONDS)
            redis.resume()

    @asynccontextmanager
    async def _redis_away(self, name: str) -> AsyncIterator[Valkey]:
        assert self._redis is not None
        with self._outages.during(REDIS):
            yield self._redis
        self.counts[name] += 1

    def _write(self, text: str) -> None:
        """Replace the limits in one step, as careful editors do."""
        path: Path = self._gateway.folder / "policies" / "rate_limits.yaml"
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text)
        partial.replace(path)

    async def _policies(self, series: str) -> float:
        return (await self._gateway.metrics())[series]

    async def _until(self, what: str, series: str, value: float) -> None:
        async def is_there() -> bool:
            return await self._policies(series) >= value

        await eventually(what, is_there)
