"""One trace from the client to the upstream, the receiver and Convex; and collectors that fail."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from gateway.core.trace import parse_traceparent
from tests.support.collector import Collector, status
from tests.support.echo import Echo
from tests.support.receiver import Receiver
from tests.support.system import KEY, SECRET_KEY, VIDEO, AnalysisApi, GatewayProcess, eventually

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
SERVER, CLIENT = 2, 3
CREATE = "POST /api/v1/analysis"
CONVEX_KEY = "prod:happy-otter-123|c29tZS1zZWNyZXQ="
Launch = Callable[..., Awaitable[GatewayProcess]]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def collector(stack: AsyncExitStack) -> Collector:
    return await stack.enter_async_context(Collector())


@pytest.fixture
async def echo(stack: AsyncExitStack) -> Echo:
    return await stack.enter_async_context(Echo())


@pytest.fixture
def launch(stack: AsyncExitStack, collector: Collector, tmp_path: Path) -> Launch:
    """Starts a gateway that sends its spans to the collector."""

    async def start(upstream: str, /, **settings: Any) -> GatewayProcess:
        tracing = {"endpoint": collector.url, "interval": "10ms", **settings.pop("tracing", {})}
        process = GatewayProcess(tmp_path, upstream, tracing=tracing, **settings)
        return await stack.enter_async_context(process)

    return start


def url(echo: Echo) -> str:
    return f"http://127.0.0.1:{echo.port}"


async def convex(request: web.BaseRequest) -> web.StreamResponse:
    """A deployment that takes every mutation."""
    await request.read()
    return web.json_response({"status": "success", "value": {"applied": True}})


def lines(gateway: GatewayProcess, event: str) -> list[dict[str, Any]]:
    found = [orjson.loads(line) for line in gateway.log.splitlines()]
    return [line for line in found if line["event"] == event]


# --- one trace -----------------------------------------------------------------------------------


async def test_a_clients_trace_reaches_the_receiver_and_convex(
    stack: AsyncExitStack, collector: Collector, echo: Echo, launch: Launch
) -> None:
    echo.answer = convex
    upstream = await stack.enter_async_context(AnalysisApi())
    receiver = await stack.enter_async_context(Receiver())
    gateway = await launch(upstream.url, convex={"url": url(echo), "deploy_key": None})
    await gateway.register(receiver.url)
    collector.spans.clear()

    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "X-Request-ID": "request-1"}
    body = {"url": VIDEO}
    created = await gateway.request("POST", "/api/v1/analysis", body, headers=headers)
    assert created.status == 200
    names = (CREATE, "POST", "webhook job.completed", "convex update_progress")
    server, call, delivery, update = await collector.wait_for(*names)

    assert {span.trace_id for span in (server, call, delivery, update)} == {TRACE_ID}
    assert (server.kind, server.parent_id, server.state) == (SERVER, SPAN_ID, "vendor=1")
    assert (call.kind, call.parent_id) == (CLIENT, server.span_id)
    assert (delivery.kind, delivery.parent_id) == (CLIENT, server.span_id)
    assert (update.kind, update.parent_id) == (CLIENT, server.span_id)
    assert server.start <= call.start <= call.end <= server.end
    job_id = created.document["job_id"]
    for span in (server, delivery, update):
        assert span.attributes["gateway.job_id"] == job_id
        assert span.attributes["gateway.request_id"] == "request-1"
    assert server.attributes["http.route"] == "/api/v1/analysis"
    assert server.attributes["http.response.status_code"] == 200
    assert call.attributes["server.port"] == upstream.port

    [came] = [each for each in receiver.requests if each.event == "job.completed"]
    told = parse_traceparent(came.headers["traceparent"])
    assert told is not None
    assert (told.trace_id, told.span_id) == (TRACE_ID, delivery.span_id)
    assert came.headers["X-Request-ID"] == "request-1"
    assert came.headers["tracestate"] == "vendor=1"
    [sent] = [each for each in echo.arrived if update.span_id in each.headers["traceparent"]]
    assert sent.headers["traceparent"] == f"00-{TRACE_ID}-{update.span_id}-01"
    assert sent.headers["tracestate"] == "vendor=1"

    await gateway.terminate()  # so that its last lines are written
    [line] = [line for line in lines(gateway, "request") if line["method"] == "POST"][-1:]
    assert (line["trace_id"], line["span_id"]) == (TRACE_ID, server.span_id)
    for event in ("job_transition", "delivery_attempt"):
        told_of_it = [line for line in lines(gateway, event) if line["job_id"] == job_id]
        assert {line["trace_id"] for line in told_of_it} == {TRACE_ID}


@pytest.mark.parametrize(
    ("state", "told"), [("a=1, b=2", "a=1,b=2"), (f"a={KEY}", None), ("junk", None)]
)
async def test_without_a_collector_the_clients_own_context_reaches_the_receiver(
    stack: AsyncExitStack, launch: Launch, state: str, told: str | None
) -> None:
    upstream = await stack.enter_async_context(AnalysisApi())
    receiver = await stack.enter_async_context(Receiver())
    gateway = await launch(upstream.url, tracing={"endpoint": None})
    body = {"url": VIDEO, "callback_url": receiver.url}

    headers = {"traceparent": TRACEPARENT, "tracestate": state}
    await gateway.request("POST", "/api/v1/analysis", body, headers=headers)
    [first] = await receiver.wait_for(1)

    assert first.headers["traceparent"] == TRACEPARENT
    assert first.headers.get("tracestate") == told


async def test_the_upstream_is_called_by_a_span_of_the_clients_trace(
    collector: Collector, echo: Echo, launch: Launch
) -> None:
    gateway = await launch(url(echo))

    await gateway.request("GET", "/x", headers={"traceparent": TRACEPARENT, "tracestate": "a=1"})
    await collector.wait_until(lambda: len(collector.spans) == 2)

    [call] = [span for span in collector.spans if span.kind == CLIENT]
    sent = echo.forwarded[-1].headers
    assert sent["traceparent"] == f"00-{TRACE_ID}-{call.span_id}-01"
    assert sent["tracestate"] == "a=1"


async def test_a_repeated_request_is_told_of_a_span_of_its_own_each_time(
    collector: Collector, echo: Echo, launch: Launch
) -> None:
    gateway = await launch(url(echo))

    for _ in range(6):
        await gateway.request("GET", "/x", headers={"traceparent": TRACEPARENT})
    await collector.wait_until(lambda: len(collector.spans) == 12)

    calls = {span.span_id for span in collector.spans if span.kind == CLIENT}
    assert len(calls) == 6
    assert {each.headers["traceparent"] for each in echo.forwarded} == {
        f"00-{TRACE_ID}-{call}-01" for call in calls
    }


async def test_a_request_without_a_trace_begins_one_by_the_ratio(
    collector: Collector, echo: Echo, launch: Launch
) -> None:
    gateway = await launch(url(echo), tracing={"sample_ratio": 0.0})

    await gateway.request("GET", "/unsampled")
    begun = parse_traceparent(echo.forwarded[-1].headers["traceparent"])
    await gateway.request("GET", "/sampled", headers={"traceparent": TRACEPARENT})
    await collector.wait_until(lambda: len(collector.spans) == 2)

    assert begun is not None
    assert not begun.is_sampled
    assert {span.trace_id for span in collector.spans} == {TRACE_ID}
    await gateway.terminate()  # so that its last lines are written
    by_path = {line["path"]: line for line in lines(gateway, "request")}
    assert by_path["/unsampled"]["trace_id"] == begun.trace_id


async def test_the_full_lane_is_traced_as_the_fast_one(
    collector: Collector, echo: Echo, launch: Launch
) -> None:
    gateway = await launch(url(echo))

    await gateway.request("POST", "/x", {"a": 1}, headers={"traceparent": TRACEPARENT})
    await collector.wait_until(lambda: len(collector.spans) == 2)

    [server] = [span for span in collector.spans if span.kind == SERVER]
    [call] = [span for span in collector.spans if span.kind == CLIENT]
    assert (server.parent_id, call.parent_id) == (SPAN_ID, server.span_id)
    assert server.attributes["http.response.body.size"] == len(b'{"a":1}')


async def test_exemplars_name_the_trace_of_a_sampled_request(echo: Echo, launch: Launch) -> None:
    gateway = await launch(url(echo), tracing={"sample_ratio": 0.0})
    await gateway.request("GET", "/x", headers={"traceparent": TRACEPARENT})
    await gateway.request("GET", "/x")

    plain = (await gateway.ask_admin("/metrics")).body.decode()
    answer = await gateway.ask_admin("/metrics", accept="application/openmetrics-text")
    marked = [line for line in answer.body.decode().splitlines() if " # {" in line]

    assert " # {" not in plain
    assert {line.partition("_bucket")[0] for line in marked} == {
        "gateway_http_request_duration_seconds",
        "gateway_upstream_request_duration_seconds",
    }
    assert all(f'trace_id="{TRACE_ID}"' in line for line in marked)


# --- collectors that fail ------------------------------------------------------------------------


async def test_a_collector_that_is_away_costs_no_request_and_is_named_with_since_when(
    collector: Collector, echo: Echo, launch: Launch
) -> None:
    await collector.stop()
    gateway = await launch(url(echo), tracing={"queue": 20, "batch": 10})
    for _ in range(50):
        assert (await gateway.request("GET", "/x")).status == 200

    async def is_named() -> bool:
        component = (await gateway.health())["components"]["tracing"]
        return component["status"] == "degraded" and component["failing_since"] is not None

    await eventually("health names the collector", is_named)
    component = (await gateway.health())["components"]["tracing"]
    assert "ClientConnectorError" in component["error"]
    assert (await gateway.ask_admin("/health/ready")).status == 200
    assert (await gateway.metrics())["gateway_trace_spans_dropped_total{reason=queue_full}"] >= 60

    await collector.start()
    await collector.wait_until(lambda: collector.spans)

    async def is_well() -> bool:
        component = (await gateway.health())["components"]["tracing"]
        return component["status"] == "healthy" and component["failing_since"] is None

    await eventually("health is well again", is_well)
    await gateway.terminate()
    assert [line["level"] for line in lines(gateway, "collector_failing")] == ["warning"]
    assert [line["level"] for line in lines(gateway, "collector_answers_again")] == ["info"]


async def test_a_collector_that_hangs_holds_up_no_request_no_probe_and_no_delivery(
    stack: AsyncExitStack, collector: Collector, launch: Launch
) -> None:
    collector.answer = collector.hang
    upstream = await stack.enter_async_context(AnalysisApi())
    receiver = await stack.enter_async_context(Receiver())
    gateway = await launch(upstream.url, tracing={"batch": 1, "timeout": "30s"})
    await gateway.register(receiver.url)
    await collector.wait_until(lambda: collector.bodies)

    job_id = await gateway.create()
    await gateway.finish(job_id)
    await receiver.wait_until(lambda: "job.completed" in receiver.events)
    began = time.monotonic()
    assert (await gateway.ask_admin("/health")).status == 200
    assert time.monotonic() - began < 1.0

    began = time.monotonic()
    assert await gateway.terminate() == 0
    assert time.monotonic() - began < 10.0  # the drain's deadline, 2 s, and the process's end


@pytest.mark.parametrize("code", [400, 401, 503])
async def test_a_collector_that_refuses_costs_spans_which_are_counted(
    collector: Collector, echo: Echo, launch: Launch, code: int
) -> None:
    collector.answer = status(code)
    gateway = await launch(url(echo), tracing={"queue": 4, "batch": 2})
    for _ in range(10):
        assert (await gateway.request("GET", "/x")).status == 200

    async def is_counted() -> bool:
        counted = await gateway.metrics()
        return counted.get("gateway_trace_spans_dropped_total", 0.0) >= 10

    await eventually("drops are counted", is_counted)
    assert (await gateway.metrics())["gateway_trace_spans_exported_total"] == 0
    component = (await gateway.health())["components"]["tracing"]
    assert (component["status"], component["error"]) == (
        "degraded",
        f"the collector: answered {code}",
    )


async def test_what_waits_at_the_end_is_flushed(
    collector: Collector, echo: Echo, launch: Launch
) -> None:
    gateway = await launch(url(echo), tracing={"interval": "1h"})
    await gateway.request("GET", "/last")

    assert await gateway.terminate() == 0

    assert [span.attributes["url.path"] for span in collector.spans] == ["/last", "/last"]


# --- secrets -------------------------------------------------------------------------------------


async def test_no_secret_reaches_a_span_or_a_log_line(
    stack: AsyncExitStack, collector: Collector, echo: Echo, launch: Launch
) -> None:
    upstream = await stack.enter_async_context(AnalysisApi())
    receiver = await stack.enter_async_context(Receiver())
    echo.answer = convex
    gateway = await launch(
        upstream.url,
        tracing={"headers": {"X-Api-Key": "${COLLECTOR_KEY}"}},
        convex={"url": url(echo), "deploy_key": "${CONVEX_DEPLOY_KEY}"},
        environment={"COLLECTOR_KEY": "collector-secret-0", "CONVEX_DEPLOY_KEY": CONVEX_KEY},
    )
    secret_path = "/hooks/T000/path-secret-1"
    webhook = await gateway.register(
        receiver.url_of(secret_path), headers={"X-Token": "static-secret-2"}
    )
    job_id = await gateway.create(callback_url=receiver.url_of("/call/path-secret-3"))
    tracestate = {"traceparent": TRACEPARENT, "tracestate": f"a={KEY}"}
    for path, headers in (
        (f"/api/v1/analysis/{job_id}?api_key=query-secret-4", {}),
        (f"/x/{KEY}", {}),
        (f"/x/{webhook['secret']}", {}),
        ("/x?ticket=ticket-secret-5", {"Authorization": "Bearer bearer-secret-6"}),
        ("/x", {"Cookie": "session=cookie-secret-7", "User-Agent": KEY}),
        ("/x", {"X-Request-ID": KEY}),
        ("/x", tracestate),
        ("/api/v1/jobs", {"X-API-Key": "wrong-secret-8"}),
    ):
        await gateway.request("GET", path, headers=headers)
    await gateway.finish(job_id)
    await receiver.wait_until(lambda: receiver.events.count("job.completed") == 2)
    await gateway.terminate()

    assert len(collector.named("webhook job.completed")) == 2
    assert len(collector.of_trace(TRACE_ID)) >= 1
    exported = b"".join(collector.bodies).decode("utf-8", "replace")
    numbered = [f"secret-{number}" for number in range(9)]
    for secret in (KEY, SECRET_KEY, webhook["secret"], CONVEX_KEY, *numbered):
        assert secret not in exported, secret
        assert secret not in gateway.log, secret
    assert collector.headers[0]["X-Api-Key"] == "collector-secret-0"
