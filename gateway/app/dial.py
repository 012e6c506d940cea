"""Dials Redis once, for `gateway check --connect`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.core.error import SettingsError
from gateway.settings.model import Settings
from gateway.store.redis.client import RedisClient
from gateway.store.redis.layout import Layout
from gateway.web.health import Component, Reading, Status
from gateway.web.health_check import absent


@asynccontextmanager
async def redis_component(settings: Settings) -> AsyncIterator[Component]:
    """The component `redis`: it answers, and what lies there is of a layout that is known."""
    if settings.redis is None:
        yield Component("redis", absent())
        return
    client = RedisClient(settings.redis)

    async def check() -> Reading:
        await client.ping()
        try:
            await Layout(client).check()
        except SettingsError as error:
            return Reading(Status.UNHEALTHY, error.problems[0])
        policy = await client.eviction_policy()
        if settings.store.kind == "redis" and policy not in (None, "noeviction"):
            return Reading(Status.DEGRADED, _EVICTS.format(policy))
        return Reading()

    try:
        yield Component("redis", check)
    finally:
        await client.close()


_EVICTS = "its maxmemory-policy is {}: set noeviction, or it drops jobs and messages when full"
