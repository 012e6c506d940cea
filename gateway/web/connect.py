"""Dials everything that the settings name, once: what `gateway check --connect` shows."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from gateway.settings.health import Dependency
from gateway.settings.model import Settings
from gateway.telemetry.export import CollectorError
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import UpstreamClient
from gateway.web.health import Check, Component, Health, Reading, Status
from gateway.web.health_check import absent, dependency, open_session, upstream

_CONVEX_PATH = "/version"


async def connect(
    settings: Settings, further: Sequence[Component] = ()
) -> dict[str, dict[str, Any]]:
    """Each component's condition: its `status`, `error` and `latency_seconds`.

    `further` are those that another package knows how to dial.
    """
    client = UpstreamClient(settings.upstream, Metrics())
    await client.open()
    try:
        async with open_session() as session:
            components = [
                Component("upstream", upstream(client, settings)),
                *_components(settings, session),
                *further,
            ]
            seconds = settings.health.timeout
            health = Health(components, interval=1.0, timeout=seconds, now=time.time)
            await health.check()
    finally:
        await client.close()
    found: dict[str, dict[str, Any]] = health.report()["components"]
    return found


def failed(condition: dict[str, Any]) -> bool:
    """True when the component was dialled and did not answer as it should."""
    return condition["status"] not in (Status.HEALTHY, Status.NOT_CONFIGURED)


def _components(settings: Settings, session: aiohttp.ClientSession) -> list[Component]:
    timeout = settings.health.timeout

    def asks(name: str, url: str) -> Component:
        return Component(name, dependency(session, Dependency(url=url, timeout=timeout)))

    found: list[Component] = []
    if settings.convex.url is None:
        found.append(Component("convex", absent()))
    else:
        found.append(asks("convex", settings.convex.url.rstrip("/") + _CONVEX_PATH))
    found.extend(
        Component(name, dependency(session, item))
        for name, item in settings.health.dependencies.items()
    )
    found.append(Component("tracing", _collector(settings)))
    path = Path(settings.store.sqlite.path)

    async def store() -> Reading:
        return await asyncio.to_thread(writable, path)

    found.append(Component("store", store))
    return found


def _collector(settings: Settings) -> Check:
    """Whether the collector of `tracing` takes a request without spans."""
    if settings.tracing.endpoint is None:
        return absent()

    async def check() -> Reading:
        from gateway.telemetry.otlp import OtlpCollector  # noqa: PLC0415 - of the extra `otel`

        collector = OtlpCollector(settings.tracing, "check")
        try:
            await collector.send(())
        except CollectorError as error:
            return Reading(Status.UNHEALTHY, str(error))
        finally:
            await collector.close()
        return Reading()

    return check


def writable(path: Path) -> Reading:
    """Whether a database could be written at `path`; leaves nothing behind."""
    folder = path.absolute().parent
    try:
        if folder.is_dir():
            with tempfile.TemporaryFile(dir=folder):
                return Reading()
        above = next(parent for parent in folder.parents if parent.exists())
    except OSError as error:
        return Reading(Status.UNHEALTHY, f"{folder} cannot be written: {error.strerror}")
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return Reading()
    return Reading(Status.UNHEALTHY, f"{folder} is not there and cannot be made in {above}")
