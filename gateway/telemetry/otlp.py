"""Spans as an OpenTelemetry collector takes them: OTLP over HTTP, in binary protobuf.

Source: OTLP specification 1.x, "OTLP/HTTP". The messages come with the extra `otel`; this module is
imported where tracing is on, and nowhere else.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import aiohttp
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from gateway import __version__
from gateway.core.trace import Attribute, Kind, Span
from gateway.settings.check_tracing import SERVICE_NAME
from gateway.settings.telemetry import Tracing
from gateway.telemetry.export import CollectorAway, CollectorRefused, Rejection
from gateway.telemetry.log import cleaned

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

CONTENT_TYPE = "application/x-protobuf"
_SCOPE = "gateway"
_AT_ONCE = 32  # spans encoded before the event loop may do something else
_ANSWER_BYTES = 64 * 1024
_AGAIN = frozenset({429, 502, 503, 504})
_KINDS = {Kind.SERVER: Message.SPAN_KIND_SERVER, Kind.CLIENT: Message.SPAN_KIND_CLIENT}


class OtlpCollector:
    """The collector that the settings name; `instance` tells this process from its siblings.

    No redirect is followed and no proxy taken from the environment. Raises OSError for a `ca` that
    cannot be read.
    """

    def __init__(self, settings: Tracing, instance: str) -> None:
        assert settings.endpoint is not None, "without an endpoint there is nothing to send to"
        self._url = f"{settings.endpoint.rstrip('/')}/v1/traces"
        self._timeout_seconds = settings.timeout
        self._headers = {
            "Content-Type": CONTENT_TYPE,
            "Content-Encoding": "gzip",
            "User-Agent": f"klipstream-gateway/{__version__}",
            **{name: value.get_secret_value() for name, value in settings.headers.items()},
        }
        self._tls: ssl.SSLContext | bool = True
        if settings.endpoint.startswith("https:"):
            self._tls = ssl.create_default_context(cafile=settings.ca)
        self._resource: Mapping[str, Attribute | None] = {
            **settings.resource,
            SERVICE_NAME: settings.service_name,
            "service.version": __version__,
            "service.instance.id": instance,
        }
        self._session: aiohttp.ClientSession | None = None

    async def send(self, spans: Sequence[Span]) -> Rejection:
        """What the collector rejected of the spans. Raises CollectorError; keeps to the timeout."""
        body = await asyncio.to_thread(gzip.compress, await self._encoded(spans), 1)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(body)
        except TimeoutError:
            limit = f"{self._timeout_seconds:g} s"
            raise CollectorAway(f"no complete answer within {limit}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise CollectorAway(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close every connection; harmless when there was none."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, body: bytes) -> Rejection:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # see send
                trust_env=False,
            )
        async with self._session.post(self._url, data=body, allow_redirects=False) as response:
            answer = bytearray()
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > _ANSWER_BYTES:
                    raise CollectorRefused(f"answered more than {_ANSWER_BYTES} bytes")
            if response.status in _AGAIN:
                wait = response.headers.get("Retry-After", "")
                raise CollectorAway(
                    f"answered {response.status}", float(wait) if wait.isdecimal() else None
                )
            if not 200 <= response.status < 300:
                raise CollectorRefused(f"answered {response.status}")
            return _rejection(response.content_type, bytes(answer))

    async def _encoded(self, spans: Sequence[Span]) -> bytes:
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        _tell(group.resource.attributes, self._resource)
        scope = group.scope_spans.add()
        scope.scope.name, scope.scope.version = _SCOPE, __version__
        for place, span in enumerate(spans):
            if place % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            _fill(scope.spans.add(), span)
        return request.SerializeToString()


def _fill(message: Message, span: Span) -> None:
    # Field by field: a message made of others is copied, which takes as long again.
    context = span.context
    message.trace_id = bytes.fromhex(context.trace_id)
    message.span_id = bytes.fromhex(context.span_id)
    message.trace_state = context.state
    if span.parent_id is not None:
        message.parent_span_id = bytes.fromhex(span.parent_id)
    message.flags = context.flags
    message.name = span.name
    message.kind = _KINDS[span.kind]
    message.start_time_unix_nano = _nanoseconds(span.started_at)
    message.end_time_unix_nano = _nanoseconds(span.ended_at)
    _tell(message.attributes, span.attributes)
    if span.is_error:
        message.status.code = Status.STATUS_CODE_ERROR


def _nanoseconds(at: float) -> int:
    """Whole microseconds: an epoch time as a float knows no more."""
    return round(at * 1e6) * 1000


def _tell(
    into: RepeatedCompositeFieldContainer[KeyValue], found: Mapping[str, Attribute | None]
) -> None:
    """Add attributes, masked as the fields of a log line are."""
    for name, value in found.items():
        if value is None:
            continue
        told = into.add()
        told.key = name
        match cleaned(name, value):
            case str(text):
                told.value.string_value = text
            case bool(flag):
                told.value.bool_value = flag
            case int(number):
                told.value.int_value = number
            case float(number):
                told.value.double_value = number


def _rejection(content_type: str, answer: bytes) -> Rejection:
    """What an answer of success says of spans that were dropped all the same."""
    if content_type != CONTENT_TYPE:
        return Rejection()
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return Rejection()
    return Rejection(partial.rejected_spans, partial.error_message)
