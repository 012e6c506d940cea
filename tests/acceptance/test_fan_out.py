"""A client connected to any replica sees the job live, whoever observes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.system import AnalysisApi, GatewayProcess, eventually
from tests.support.valkey import Valkey

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS = 20  # of each replica


def settings(server: Valkey, name: str, *, shared: bool) -> dict[str, Any]:
    return {
        "store": {"kind": "redis"},
        "environment": {"REDIS_URL": server.url},
        "redis": {"url": "${REDIS_URL}"},
        "upstream": {"shared": shared, "instance": name},
        "jobs": {"watch": {"lease": "1500ms"}},
    }


def folder(path: Path, name: str) -> Path:
    (path / name).mkdir()
    return path / name


async def known(gateway: GatewayProcess, job_id: str) -> None:
    """Once the replica has heard of the job."""

    async def has_heard() -> bool:
        return (await gateway.metrics())["gateway_jobs_active"] == 1

    await eventually(f"{job_id} is known", has_heard)


def check(events: list[Any]) -> None:
    """It was greeted, saw the job move, and its end."""
    names = [event["event"] for event in events]
    assert names[0] == "connected"
    assert names[-2:] == ["completed", "stream_ended"]
    assert names.count("completed") == 1
    assert set(names[1:-2]) == {"progress"}
    percentages = [event["progress"]["percentage"] for event in events if "progress" in event]
    assert percentages == sorted(percentages)
    assert percentages[-1] == 100
    assert len(set(percentages)) >= 3


@pytest.mark.parametrize("shared", [True, False], ids=["shared-upstream", "sidecars"])
async def test_clients_of_every_replica_see_the_job_live(tmp_path: Path, *, shared: bool) -> None:
    with Valkey(tmp_path / "redis") as server:
        async with AnalysisApi(speed=10) as api, AnalysisApi(speed=10) as other:
            urls = [api.url, api.url if shared else other.url]
            one, two = (
                GatewayProcess(folder(tmp_path, name), url, **settings(server, name, shared=shared))
                for name, url in zip(("one", "two"), urls, strict=True)
            )
            async with one, two:
                job_id = await one.create()
                await known(two, job_id)
                streams = await asyncio.gather(
                    *(each.stream(job_id) for each in (one, two) for _ in range(CLIENTS))
                )
            for events in streams:
                check(events)
            assert (await api.stats())["max_open_streams"] == 1
            assert (await other.stats())["max_open_streams"] == 0
