"""An OpenTelemetry collector on 127.0.0.1 that remembers its spans, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from multidict import CIMultiDictProxy
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from gateway.core.trace import Span

CONDITION_SECONDS = 15.0
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One span as it was decoded; times are nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    state: str
    name: str
    kind: int
    start: int
    end: int
    attributes: Mapping[str, Any]
    is_error: bool
    resource: Mapping[str, Any]


def nowhere(_span: Span) -> None:
    """Where the ended spans of a test go that looks at none."""


async def taken(_request: web.BaseRequest) -> web.StreamResponse:
    """As a collector answers that took everything."""
    return web.Response(
        body=ExportTraceServiceResponse().SerializeToString(),
        content_type="application/x-protobuf",
    )


def status(code: int, **headers: str) -> Answer:
    """An answer of this status."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            status=code, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return answer


class Collector:
    """`spans` are those of answered requests; a request is read whole before `answer` is asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.spans: list[Seen] = []
        self.bodies: list[bytes] = []
        self.headers: list[CIMultiDictProxy[str]] = []
        self.paths: list[str] = []
        self.answer: Answer = taken
        self.port = 0
        self._released = asyncio.Event()
        self._changed = asyncio.Condition()
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        """What `tracing.endpoint` says."""
        return (
            f"http://127.0.0.1:{self.port}" if not self._tls else f"https://localhost:{self.port}"
        )

    async def start(self) -> None:
        """Listen: at first on a free port, afterwards on the same."""
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection, and be away."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def hang(self, _request: web.BaseRequest) -> web.StreamResponse:
        """Answer nothing until stopped."""
        await self._released.wait()
        return web.Response(status=503)

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Return once the condition holds; it is looked at whenever a request came."""
        try:
            async with asyncio.timeout(CONDITION_SECONDS), self._changed:
                await self._changed.wait_for(lambda: bool(condition()))
        except TimeoutError:
            names = [span.name for span in self.spans]
            raise AssertionError(f"not within {CONDITION_SECONDS:g} s; spans: {names}") from None

    async def wait_for(self, *names: str) -> list[Seen]:
        """The first spans of these names, once they are all there."""
        await self.wait_until(lambda: set(names) <= {span.name for span in self.spans})
        return [self.named(name)[0] for name in names]

    def named(self, name: str) -> list[Seen]:
        """Every span of this name."""
        return [span for span in self.spans if span.name == name]

    def of_trace(self, trace_id: str) -> list[Seen]:
        """Every span of this trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()  # the server inflates it
        self.paths.append(request.path)
        self.headers.append(request.headers)
        self.bodies.append(body)
        async with self._changed:
            self._changed.notify_all()
        response = await self.answer(request)
        if response.status == 200:
            self.spans += decoded(body)
        async with self._changed:
            self._changed.notify_all()
        return response

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def decoded(body: bytes) -> list[Seen]:
    """The spans of a request's body."""
    return [
        Seen(
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            state=span.trace_state,
            name=span.name,
            kind=span.kind,
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            attributes=_values(span.attributes),
            is_error=span.status.code == 2,
            resource=_values(group.resource.attributes),
        )
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: _value(each) for each in attributes}


def _value(attribute: KeyValue) -> Any:
    value: AnyValue = attribute.value
    kind = value.WhichOneof("value")
    assert kind is not None
    return getattr(value, kind)
