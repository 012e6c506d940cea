"""`gateway check --connect`: everything named is dialled, and nothing is left behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.settings.delivery import Convex
from gateway.settings.health import Dependency
from gateway.settings.health import Health as HealthSettings
from gateway.settings.model import Settings
from gateway.settings.store import Sqlite, Store
from gateway.settings.telemetry import Tracing
from gateway.settings.upstream import Upstream
from gateway.web.connect import connect, failed, writable
from gateway.web.health import Status
from tests.support.collector import Collector, status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_each_component_is_dialled_at_its_own_path(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=500 if request.path == "/gcs" else 200)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        base = str(server.make_url("/")).rstrip("/")
        found = await connect(
            Settings(
                upstream=Upstream(url=base, health_path="/alive"),
                convex=Convex(url=base + "/"),
                health=HealthSettings(dependencies={"gcs": Dependency(url=base + "/gcs")}),
                store=Store(sqlite=Sqlite(path=str(tmp_path / "new" / "gateway.db"))),
            )
        )

    assert sorted(asked) == ["/alive", "/gcs", "/version"]
    assert {name: failed(condition) for name, condition in found.items()} == {
        "upstream": False,
        "convex": False,
        "gcs": True,
        "tracing": False,
        "store": False,
    }
    assert not os.listdir(tmp_path)  # noqa: PTH208 - nothing else of the loop's runs here


async def test_an_upstream_that_is_away_has_failed_and_convex_may_be_absent(
    tmp_path: Path,
) -> None:
    found = await connect(
        Settings(
            upstream=Upstream(url=f"http://127.0.0.1:{free_port()}"),
            store=Store(sqlite=Sqlite(path=str(tmp_path / "gateway.db"))),
        )
    )

    assert failed(found["upstream"])
    assert "cannot be reached" in found["upstream"]["error"]
    assert "Connect call failed" in found["upstream"]["error"]
    assert found["convex"]["status"] == "not_configured"
    assert not failed(found["convex"])


def test_a_store_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    reading = writable(tmp_path / "file" / "below" / "gateway.db")

    assert reading.status is Status.UNHEALTHY


def test_a_store_in_a_folder_that_takes_no_files_has_failed() -> None:
    # /proc takes no files from anybody, root included.
    reading = writable(Path("/proc/gateway.db"))

    assert reading.status is Status.UNHEALTHY
    assert reading.error is not None
    assert reading.error.startswith("/proc cannot be written")


@pytest.mark.parametrize(("code", "said"), [(200, None), (401, "answered 401")])
async def test_the_collector_of_traces_is_sent_a_request_without_spans(
    tmp_path: Path, code: int, said: str | None
) -> None:
    async with Collector() as collector:
        if said is not None:
            collector.answer = status(code)
        found = await connect(
            Settings(
                upstream=Upstream(url=f"http://127.0.0.1:{free_port()}"),
                tracing=Tracing(endpoint=collector.url),
                store=Store(sqlite=Sqlite(path=str(tmp_path / "gateway.db"))),
            )
        )

    assert (failed(found["tracing"]), found["tracing"]["error"]) == (said is not None, said)
    assert collector.paths == ["/v1/traces"]
    assert collector.spans == []
