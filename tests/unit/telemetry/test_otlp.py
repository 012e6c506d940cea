"""What a collector gets over the wire, and what its answers mean."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from pydantic import SecretStr

from gateway import __version__
from gateway.core.credential import format_key
from gateway.core.trace import Kind, Span, TraceContext
from gateway.settings.telemetry import Tracing
from gateway.telemetry.export import CollectorAway, CollectorRefused, Rejection
from gateway.telemetry.otlp import OtlpCollector
from gateway.telemetry.trace import Tracer
from tests.support.certificate import make_certificate
from tests.support.collector import Collector, nowhere, status

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = format_key(bytes(24))


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as collector:
        yield collector


def span(**attributes: Any) -> Span:
    context = TraceContext(TRACE_ID, SPAN_ID, 1, "a=1")
    made = Span("GET /", Kind.CLIENT, context, "1" * 16, 1700000000.25, Tracer(1.0, nowhere))
    made.ended_at, made.attributes = 1700000000.5, attributes
    return made


async def send(collector: Collector, *spans: Span, **settings: Any) -> Rejection:
    section = Tracing(**{"endpoint": collector.url, "timeout": 5.0, **settings})
    client = OtlpCollector(section, "instance-1")
    try:
        return await client.send(spans or (span(),))
    finally:
        await client.close()


async def test_a_span_arrives_whole(collector: Collector) -> None:
    made = span(**{"a.text": "x", "a.count": 3, "a.share": 0.5, "a.flag": True, "none": None})
    made.is_error = True

    assert await send(collector, made) == Rejection()

    [seen] = collector.spans
    assert (seen.trace_id, seen.span_id, seen.parent_id) == (TRACE_ID, SPAN_ID, "1" * 16)
    assert (seen.name, seen.kind, seen.state, seen.is_error) == ("GET /", 3, "a=1", True)
    assert (seen.start, seen.end) == (1700000000_250000000, 1700000000_500000000)
    assert seen.attributes == {"a.text": "x", "a.count": 3, "a.share": 0.5, "a.flag": True}


async def test_a_span_that_begins_a_trace_has_no_parent(collector: Collector) -> None:
    made = span()
    made.parent_id = None

    await send(collector, made)

    assert collector.spans[0].parent_id == ""
    assert not collector.spans[0].is_error


async def test_the_resource_says_who_sends(collector: Collector) -> None:
    resource = {"deployment.environment.name": "test", "service.version": "mine"}

    await send(collector, service_name="edge", resource=resource)

    assert collector.spans[0].resource == {
        "deployment.environment.name": "test",
        "service.name": "edge",
        "service.version": __version__,
        "service.instance.id": "instance-1",
    }


@pytest.mark.parametrize("base", ["", "/", "/otlp", "/otlp/"])
async def test_the_path_of_the_signal_is_added_to_the_endpoint(
    collector: Collector, base: str
) -> None:
    await send(collector, endpoint=collector.url + base)

    assert collector.paths == [f"{base.rstrip('/')}/v1/traces"]


async def test_headers_of_the_settings_are_sent_and_none_of_the_environments(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-other=1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    await send(collector, headers={"X-Api-Key": SecretStr("hunter2")})

    [headers] = collector.headers
    assert headers["x-api-key"] == "hunter2"
    assert headers["Content-Type"] == "application/x-protobuf"
    assert headers["Content-Encoding"] == "gzip"
    assert "x-other" not in headers


async def test_what_looks_like_a_credential_is_masked_in_attributes(collector: Collector) -> None:
    await send(
        collector,
        span(**{"url.path": f"/x/{SECRET}", "api_key": "plain", "user": "Bearer abcdef12"}),
    )

    assert SECRET.encode() not in collector.bodies[0]
    assert collector.spans[0].attributes == {
        "url.path": "/x/[redacted]",
        "api_key": "[redacted]",
        "user": "[redacted]",
    }


async def test_bytes_that_are_no_text_are_escaped(collector: Collector) -> None:
    raw = b"/\xff\xfe".decode("utf-8", "surrogateescape")

    await send(collector, span(**{"url.path": raw}))

    assert collector.spans[0].attributes == {"url.path": "/\\udcff\\udcfe"}


@pytest.mark.parametrize("code", [429, 502, 503, 504])
async def test_an_answer_that_will_pass_means_away(collector: Collector, code: int) -> None:
    collector.answer = status(code, Retry_After="7")

    with pytest.raises(CollectorAway, match=f"answered {code}") as caught:
        await send(collector)

    assert caught.value.wait_seconds == 7


async def test_a_date_to_come_back_at_is_not_read(collector: Collector) -> None:
    collector.answer = status(503, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT")

    with pytest.raises(CollectorAway) as caught:
        await send(collector)

    assert caught.value.wait_seconds is None


@pytest.mark.parametrize("code", [301, 400, 401, 404, 413, 500])
async def test_any_other_answer_is_a_refusal(collector: Collector, code: int) -> None:
    collector.answer = status(code, Location=f"{collector.url}/elsewhere")

    with pytest.raises(CollectorRefused, match=f"answered {code}"):
        await send(collector)

    assert len(collector.paths) == 1  # no redirect is followed


async def test_a_partial_success_says_how_many_were_rejected(collector: Collector) -> None:
    async def partial(_request: web.BaseRequest) -> web.StreamResponse:
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = 2
        answer.partial_success.error_message = "too old"
        body = answer.SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")

    collector.answer = partial

    assert await send(collector, span(), span(), span()) == Rejection(2, "too old")


@pytest.mark.parametrize("content_type", ["application/x-protobuf", "text/plain"])
async def test_a_success_without_a_readable_body_is_one(
    collector: Collector, content_type: str
) -> None:
    async def odd(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"\xff\xff", content_type=content_type)

    collector.answer = odd

    assert await send(collector) == Rejection()


async def test_an_answer_without_end_is_a_refusal(collector: Collector) -> None:
    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(16 * 1024))
        except ConnectionError:
            return response

    collector.answer = flood

    with pytest.raises(CollectorRefused, match="more than 65536 bytes"):
        await send(collector)


async def test_a_collector_that_hangs_is_given_up_in_time(collector: Collector) -> None:
    collector.answer = collector.hang

    with pytest.raises(CollectorAway, match=r"no complete answer within 0\.05 s"):
        await send(collector, timeout=0.05)


async def test_a_collector_that_is_not_there_is_away() -> None:
    with socket.socket() as taken_port:
        taken_port.bind(("127.0.0.1", 0))  # bound, and not listening: connections are refused
        away = Collector()
        away.port = taken_port.getsockname()[1]

        with pytest.raises(CollectorAway, match="ClientConnectorError"):
            await send(away)


async def test_spans_beyond_a_handful_arrive_in_their_order(collector: Collector) -> None:
    await send(collector, *(span(number=number) for number in range(100)))

    assert [seen.attributes["number"] for seen in collector.spans] == list(range(100))


async def test_a_collector_behind_tls_is_verified_by_the_ca_of_the_settings(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with Collector(tls) as collector:
        await send(collector, ca=str(certificate))
        with pytest.raises(CollectorAway, match="CertificateError"):
            await send(collector)

    assert len(collector.spans) == 1
