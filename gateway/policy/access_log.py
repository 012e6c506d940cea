"""One line and one measurement a request, when its last byte is out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.core.contract import STREAM
from gateway.core.message import BodyStream, Handler, Request, Response
from gateway.settings.contract import EVENTS
from gateway.telemetry.access import WriteLine, through_structlog
from gateway.telemetry.metric import Metrics, Series, method_label

CLIENT_GONE = 499  # the status of a line whose client left before there was one, as nginx has it
_EVENT_ROUTES = frozenset({STREAM, EVENTS})


class AccessLog:
    """Writes the access line, and observes durations.

    A streamed answer's line is written when its body is closed: `aborted` says that it broke off.
    """

    def __init__(
        self,
        metrics: Metrics,
        now: Callable[[], float],
        write_line: WriteLine = through_structlog,
    ) -> None:
        self._metrics = metrics
        self._now = now
        self._write_line = write_line
        self._durations = Series(metrics.http_request_duration_seconds)

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The answer as it came."""
        try:
            response = await call_next(request)
        except BaseException as error:  # whatever it is passes on, but not without its line
            gone = isinstance(error, asyncio.CancelledError)
            self._write(request, CLIENT_GONE if gone else 500, 0, aborted=True)
            raise
        body = response.body
        if isinstance(body, bytes):
            self._write(request, response.status, len(body))
        else:
            body.closers.append(lambda: self._write_stream(request, response, body))
        return response

    def _write_stream(self, request: Request, response: Response, body: BodyStream) -> None:
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        lasting = response.status == 101 or request.match.name in _EVENT_ROUTES
        events = lasting or kind == "text/event-stream"
        aborted = not body.is_complete
        self._write(request, response.status, body.size, events=events, aborted=aborted)

    def _write(
        self,
        request: Request,
        status: int,
        size: int,
        *,
        events: bool = False,
        aborted: bool = False,
    ) -> None:
        seconds = max(0.0, self._now() - request.received_at)
        route = request.match.route.name
        if events:
            self._metrics.http_stream_duration_seconds.labels(route).observe(seconds)
        else:
            method = method_label(request.method)
            self._durations[route, method, str(status)].observe(seconds)
        line: dict[str, Any] = {
            "method": request.method,
            "route": route,
            "path": request.path,
            "status": status,
            "duration_seconds": round(seconds, 6),
            "bytes": size,
            "client": request.client,
            "key_id": request.principal.key_id if request.principal else None,
            "request_id": request.request_id,
        }
        if aborted:
            line["aborted"] = True
        self._write_line(request.fields, line)
