"""A gateway of several workers, seen from outside: its processes, and clients that do not stay."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.support.system import KEY, GatewayProcess, eventually
from tests.support.valkey import Valkey

WORKERS = 2


def settings(server: Valkey, /, **overrides: Any) -> dict[str, Any]:
    """Of two workers on a Redis; `overrides` are settings too."""
    return {
        "workers": WORKERS,
        "store": {"kind": "redis"},
        # A machine under load is no Redis that is away: limits are then counted apart.
        "redis": {"url": "${REDIS_URL}", "limit_timeout": "5s"},
        "upstream": {"instance": "app"},
        "environment": {"REDIS_URL": server.url},
        **overrides,
    }


def worker_pids(gateway: GatewayProcess) -> list[int]:
    """Of its workers, by slot; a process on its way out, or not yet there for long, is one too."""
    found = psutil.Process(gateway.pid).children()
    arguments = {each.pid: each.cmdline() for each in found}
    slots = {pid: line[line.index("--slot") + 1] for pid, line in arguments.items() if line}
    return sorted(slots, key=lambda pid: (slots[pid], pid))


def control_directory(gateway: GatewayProcess) -> Path:
    """Where the sockets between them are."""
    line = psutil.Process(worker_pids(gateway)[0]).cmdline()
    return Path(line[line.index("--control") + 1]).parent


def is_alive(pid: int) -> bool:
    """False once it has ended, reaped or not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def kill(pid: int, number: int) -> None:
    os.kill(pid, number)


async def statuses(
    gateway: GatewayProcess, path: str, count: int, key: str = KEY, seconds: float = 10.0
) -> Counter[int]:
    """What so many requests are answered with, each on a connection of its own."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        timeout=aiohttp.ClientTimeout(total=seconds),
    ) as session:

        async def ask() -> int:
            async with session.get(gateway.public + path, headers={"X-API-Key": key}) as response:
                await response.read()
                return response.status

        return Counter(await asyncio.gather(*(ask() for _ in range(count))))


async def all_serve(gateway: GatewayProcess, besides: Sequence[int] = ()) -> list[int]:
    """The pids of its workers, once all serve and none is of `besides`."""
    found: list[int] = []

    async def serve() -> bool:
        health = await gateway.health()
        found[:] = [each["pid"] for each in health["workers"]]
        ready = health["components"]["workers"]["status"] == "healthy"
        return ready and len(found) == WORKERS and not set(found) & set(besides)

    await eventually("all workers serve", serve)
    return list(found)
