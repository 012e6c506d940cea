"""The admin listener, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from multidict import CIMultiDict

from gateway.core.message import NoBody, Request
from gateway.core.route import OTHER, Match
from gateway.telemetry.metric import Metrics
from gateway.web.admin import Admin
from gateway.web.health import Component, Health, Reading, Status
from gateway.web.problem import problem


@dataclass
class Gateway:
    """What the admin listener looks at and acts on."""

    reason: str | None = None
    reading: Reading = field(default_factory=Reading)
    drained: int = 0

    async def check(self) -> Reading:
        return self.reading

    def drain(self) -> None:
        self.drained += 1
        self.reason = "draining"


@dataclass
class Listener:
    gateway: Gateway
    health: Health
    client: TestClient[web.Request, web.Application]


async def listening(metrics: Metrics | None) -> AsyncIterator[Listener]:
    gateway = Gateway()
    components = [Component("store", gateway.check, critical=True)]
    health = Health(components, interval=60.0, timeout=5.0, now=lambda: 0.0)

    async def exposition(accept: str) -> tuple[str, bytes]:
        assert metrics is not None
        return metrics.render(accept)

    admin = Admin(
        health,
        None if metrics is None else exposition,
        not_ready=lambda: gateway.reason,
        drain=gateway.drain,
        problem=problem,
        about={"title": "An API", "version": "1.0"},
    )
    async with TestClient(TestServer(admin.application())) as client:
        yield Listener(gateway, health, client)


@pytest.fixture
async def admin() -> AsyncIterator[Listener]:
    async for listener in listening(Metrics()):
        yield listener


@pytest.fixture
async def admin_without_metrics() -> AsyncIterator[Listener]:
    async for listener in listening(None):
        yield listener


async def test_health_shows_every_component(admin: Listener) -> None:
    await admin.health.check()

    response = await admin.client.get("/health")

    assert response.status == 200
    assert response.headers["Cache-Control"] == "no-store"
    document = await response.json()
    assert document["status"] == "healthy"
    assert document["api"] == {"title": "An API", "version": "1.0"}
    assert document["components"]["store"].keys() == {
        "status",
        "latency_seconds",
        "last_success_at",
        "error",
        "since",
    }


async def test_unhealthy_is_a_503_for_those_who_read_no_body(admin: Listener) -> None:
    admin.gateway.reading = Reading(Status.UNHEALTHY, "away")
    await admin.health.check()

    response = await admin.client.get("/health")

    assert response.status == 503
    assert (await response.json())["components"]["store"]["error"] == "away"


async def test_live_depends_on_nothing(admin: Listener) -> None:
    admin.gateway.reading = Reading(Status.UNHEALTHY, "away")
    admin.gateway.reason = "starting"
    await admin.health.check()

    assert (await admin.client.get("/health/live")).status == 200


async def test_ready_asks_no_dependency(admin: Listener) -> None:
    admin.gateway.reading = Reading(Status.UNHEALTHY, "away")
    await admin.health.check()

    response = await admin.client.get("/health/ready")

    assert (response.status, await response.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize("reason", ["starting", "draining"])
async def test_not_ready_says_why(admin: Listener, reason: str) -> None:
    admin.gateway.reason = reason

    response = await admin.client.get("/health/ready")

    assert (response.status, await response.json()) == (503, {"status": reason})


async def test_drain_begins_draining_and_may_be_called_again(admin: Listener) -> None:
    first = await admin.client.post("/drain")
    second = await admin.client.post("/drain")

    assert (first.status, second.status, admin.gateway.drained) == (202, 202, 2)
    assert (await admin.client.get("/health/ready")).status == 503


async def test_looking_at_drain_drains_nothing(admin: Listener) -> None:
    response = await admin.client.get("/drain")

    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert response.content_type == "application/problem+json"
    assert admin.gateway.drained == 0


async def test_metrics_come_in_the_format_asked_for(admin: Listener) -> None:
    text = await admin.client.get("/metrics")
    openmetrics = await admin.client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"}
    )

    assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert (await openmetrics.text()).endswith("# EOF\n")
    assert "gateway_jobs_active" in await text.text()


async def test_metrics_that_are_switched_off_are_not_there(
    admin_without_metrics: Listener,
) -> None:
    response = await admin_without_metrics.client.get("/metrics")

    assert (response.status, response.content_type) == (404, "application/problem+json")


@pytest.mark.parametrize("path", ["/", "/healthz", "/health/", "/metrics/x", "/api/v1/webhooks"])
async def test_any_other_path_is_a_problem(admin: Listener, path: str) -> None:
    response = await admin.client.get(path)

    assert (response.status, response.content_type) == (404, "application/problem+json")
    document = await response.json(content_type=None)
    assert (document["status"], document["instance"]) == (404, path)


@pytest.mark.parametrize("path", ["/health", "/metrics", "/nowhere"])
async def test_no_answer_names_its_server(admin: Listener, path: str) -> None:
    response = await admin.client.get(path)

    assert "Server" not in response.headers
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_a_probe_awaits_nothing_whatever_hangs(path: str) -> None:
    """Not timed: the answer is there at the first step of the handler, or it is not."""
    never = asyncio.Event()

    async def hangs() -> Reading:
        await never.wait()
        return Reading()

    components = [Component(name, hangs, critical=True) for name in ("sqlite", "redis", "gcs")]
    health = Health(components, interval=60.0, timeout=60.0, now=lambda: 0.0)
    checking = asyncio.create_task(health.check())
    await asyncio.sleep(0)  # every check is under way, and hangs
    admin = Admin(
        health,
        None,
        not_ready=lambda: None,
        drain=lambda: None,
        problem=problem,
        about={"title": "An API", "version": "1.0"},
    )
    application = admin.application()
    request = make_mocked_request("GET", path, app=application)
    handler = (await application.router.resolve(request)).handler

    with pytest.raises(StopIteration) as ended:
        admin._boundary(request, handler).send(None)
    with pytest.raises(StopIteration) as bare:
        health.answer(_any_request()).send(None)

    checking.cancel()
    assert ended.value.value.status == 200
    assert bare.value.value.status == 200


def _any_request() -> Request:
    return Request(
        method="GET", target="/health", path="/health", query="", headers=CIMultiDict(),
        body=NoBody(), match=Match(OTHER), client="127.0.0.1", scheme="http", host="h",
        received_at=0.0,
    )  # fmt: skip
