"""What a process holds: memory and descriptors, and how late its event loop is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import psutil

from benchmarks.ledger import quantile
from tests.support.system import GatewayProcess, eventually

# Stored answers are bounded by the cache policy, and counted apart. Else all that a load leaves
# behind is what the allocator keeps: some MiB, whether the load lasted a minute or an hour. Half an
# hour of the default load is 200,000 requests: 60 bytes left by each would be 12 MiB.
MEMORY_GROWTH_BYTES = 12 * 1024**2
DESCRIPTOR_GROWTH = 4  # the admin listener's clients, a look of the watcher's under way just then
SETTLE_SECONDS = 60.0
STILL_SECONDS = 2.0
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Held:
    """`memory_bytes` is the resident set, of which `cached_bytes` are stored answers."""

    memory_bytes: int
    cached_bytes: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Lag:
    """How late the event loop's timer was, in seconds."""

    p50_seconds: float
    p99_seconds: float
    max_seconds: float


class Vitals:
    """Watches one gateway process."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._gateway = gateway
        self._lags: list[float] = []
        self.peak_memory_bytes = 0
        self.peak_descriptors = 0

    async def watch(self) -> None:
        """Sample until cancelled."""
        process = psutil.Process(self._gateway.pid)
        while True:
            metrics = await self._gateway.metrics()
            self._lags.append(metrics["gateway_event_loop_lag_seconds"])
            self.peak_memory_bytes = max(self.peak_memory_bytes, process.memory_info().rss)
            self.peak_descriptors = max(self.peak_descriptors, process.num_fds())
            await asyncio.sleep(SAMPLE_SECONDS)

    def lag(self) -> Lag:
        """Of the samples so far."""
        lags = self._lags
        return Lag(quantile(lags, 0.5), quantile(lags, 0.99), max(lags, default=0.0))

    async def idle(self) -> None:
        """Return once no job runs and nothing waits to be sent. Raises AssertionError."""

        async def is_idle() -> bool:
            metrics = await self._gateway.metrics()
            return not metrics["gateway_jobs_active"] and not metrics["gateway_outbox_depth"]

        await eventually("no job runs, and nothing waits to be sent", is_idle, SETTLE_SECONDS)

    async def held(self) -> Held:
        """What is held once descriptors stand still. Raises AssertionError when they do not."""
        process = psutil.Process(self._gateway.pid)
        seen, since = process.num_fds(), time.monotonic()

        async def is_still() -> bool:
            nonlocal seen, since
            if (descriptors := process.num_fds()) != seen:
                seen, since = descriptors, time.monotonic()
            return time.monotonic() - since > STILL_SECONDS

        await eventually("descriptors stand still", is_still, SETTLE_SECONDS)
        cached = int((await self._gateway.metrics())["gateway_cache_bytes"])
        return Held(process.memory_info().rss, cached, seen)


def growth(before: Held, after: Held) -> list[str]:
    """What has grown beyond its bound, a sentence each; nothing when all is flat."""
    memory = after.memory_bytes - before.memory_bytes - (after.cached_bytes - before.cached_bytes)
    descriptors = after.descriptors - before.descriptors
    found = []
    if memory > MEMORY_GROWTH_BYTES:
        found.append(f"memory grew by {memory} bytes, stored answers apart: a leak")
    if descriptors > DESCRIPTOR_GROWTH:
        found.append(f"descriptors grew by {descriptors}: a leak")
    return found
