"""What spans say, by OpenTelemetry's semantic conventions for HTTP; `gateway.*` are our own.

Never a query, a header's value or a receiver's URL: each may hold a credential. What is left is
masked like a log line when it is exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.core.message import Request
from gateway.core.outbox import Message
from gateway.core.retry import Outcome
from gateway.core.route import OTHER
from gateway.core.trace import Attribute
from gateway.telemetry.metric import METHODS

Attributes = Mapping[str, Attribute | None]


def span_name(request: Request) -> str:
    """Method and route; the method alone where there is none, for paths are without number."""
    method = request.method if request.method in METHODS else "HTTP"
    route = request.match.route
    return method if route is OTHER else f"{method} {route.template}"


def of_request(request: Request, status: int, size: int) -> Attributes:
    """Of a server span; `size` is what was sent of the answer's body, in bytes."""
    host, port = split_authority(request.host)
    route = request.match.route
    principal = request.principal
    own = {f"gateway.{name}": value for name, value in request.fields.items() if _is_plain(value)}
    return {
        **own,
        **_method(request.method),
        "url.path": request.path,
        "url.scheme": request.scheme,
        "http.route": None if route is OTHER else route.template,
        "http.response.status_code": status,
        "http.response.body.size": size,
        "error.type": str(status) if status >= 500 else None,
        "server.address": host or None,
        "server.port": port,
        "client.address": request.client,
        "gateway.request_id": request.request_id,
        "gateway.key_id": principal.key_id if principal is not None else None,
        "gateway.job_id": request.match.params.get("job_id") or own.get("gateway.job_id"),
    }


def of_call(
    request: Request, upstream: Attributes, status: int | None, error_type: str | None
) -> Attributes:
    """Of the client span of a request sent on; `upstream` says where to."""
    return {
        **upstream,
        **_method(request.method),
        "url.path": request.path,
        "http.response.status_code": status,
        "error.type": error_type,
    }


def of_delivery(message: Message, outcome: Outcome) -> Attributes:
    """Of the client span of an attempt; its destination is named by id, since its URL is secret."""
    return {
        "http.request.method": "POST",
        "http.request.resend_count": message.attempt - 1 if message.attempt > 1 else None,
        "http.response.status_code": outcome.status_code,
        "error.type": None if outcome.error_kind is None else outcome.error_kind.value,
        "gateway.sink": message.sink,
        "gateway.destination": message.destination,
        "gateway.delivery_id": message.id,
        "gateway.event_id": message.event_id,
        "gateway.event_type": message.kind,
        "gateway.job_id": message.job_id,
        "gateway.request_id": message.request_id,
    }


def of_upstream(url: str) -> Attributes:
    """Where requests are sent on to: `http://host:port/base` or `unix:/path`."""
    if url.startswith("unix:"):
        return {"server.address": url.removeprefix("unix:"), "network.transport": "unix"}
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname, "server.port": port, "url.scheme": parts.scheme}


def split_authority(authority: str) -> tuple[str, int | None]:
    """Host, without the brackets of an IPv6 address, and port where one is said."""
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdecimal():
        host, port = authority, ""
    return host.removeprefix("[").removesuffix("]"), int(port) if port else None


def _method(method: str) -> Attributes:
    if method in METHODS:
        return {"http.request.method": method}
    return {"http.request.method": "_OTHER", "http.request.method_original": method}


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)
