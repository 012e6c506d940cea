"""One line and one measurement a request, when its last byte is out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import Histogram

from gateway.core.contract import STREAM
from gateway.core.message import BodyStream, Handler, Request, Response
from gateway.policy.step import Answer, Indifferent, Step
from gateway.settings.contract import EVENTS
from gateway.telemetry.access import WriteAgain, WriteLine, repeated, through_structlog
from gateway.telemetry.metric import DurationTally, Metrics, Series, method_label

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
        self.note(request, response)
        return response

    def note(self, request: Request, response: Response) -> None:
        """Write of an answer, now or when its stream ends."""
        body = response.body
        if isinstance(body, bytes):
            self._write(request, response.status, len(body))
        else:
            body.closers.append(lambda: self._write_stream(request, response, body))

    def note_left(self, request: Request) -> None:
        """Write of a client that went before there was an answer."""
        self._write(request, CLIENT_GONE, 0, aborted=True)

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
        exemplar = None if (span := request.span) is None else span.exemplar
        if events:
            route = request.match.route.name
            self._metrics.http_stream_duration_seconds.labels(route).observe(seconds, exemplar)
        else:
            # What its client wanted to wait is not how long it took.
            waited = request.fields.get("waited_seconds", 0.0)
            self._series(request, status).observe(max(0.0, seconds - waited), exemplar)
        line = _line(request, status, size, seconds)
        if span is not None:
            line |= span.ids
        if aborted:
            line["aborted"] = True
        self._write_line(request.fields, line)

    def _series(self, request: Request, status: int) -> Histogram:
        method = method_label(request.method)
        return self._durations[request.match.route.name, method, str(status)]

    def step(self, request: Request, response: Response) -> Step | None:
        """The same line but for what differs; a stream's is another each time."""
        if not isinstance(response.body, bytes):
            return None
        if request.span is not None:  # a line of other ids each time, and perhaps an exemplar
            return _AgainTraced(request, self._write)
        size = len(response.body)
        write = repeated(self._write_line, request.fields, _line(request, 0, size, 0.0))
        return _Again(self, request, response.status, write)

    def tally(self, request: Request, status: int) -> DurationTally:
        """What observes for answers of this status to requests like this one."""
        return self._metrics.duration_tally(self._series(request, status))


class _Again(Indifferent):
    """A line and a measurement of an answer that is whole."""

    __slots__ = ("_log", "_observe", "_request", "_status", "_write")

    def __init__(self, log: AccessLog, request: Request, status: int, write: WriteAgain) -> None:
        self._log = log
        self._request = request
        self._status = status
        self._observe = log.tally(request, status).observe
        self._write = write

    def done(self, at: float, status: int, size: int) -> None:
        request = self._request
        seconds = max(0.0, at - request.received_at)
        if status != self._status:
            self._status = status
            self._observe = self._log.tally(request, status).observe
        self._observe(seconds)
        self._write(request.request_id, status, size, round(seconds, 6), at)

    async def leave(self, answer: Answer) -> Answer:
        if isinstance(answer, Response):
            self._log.note(self._request, answer)
        return answer

    def left(self) -> None:
        self._log.note_left(self._request)


class _AgainTraced(Step):
    """The line and the measurement of a request that has a span."""

    __slots__ = ("_request", "_write")

    def __init__(self, request: Request, write: Callable[[Request, int, int], None]) -> None:
        self._request = request
        self._write = write

    def done(self, at: float, status: int, size: int) -> None:  # noqa: ARG002 - read anew
        self._write(self._request, status, size)


def _line(request: Request, status: int, size: int, seconds: float) -> dict[str, Any]:
    return {
        "method": request.method,
        "route": request.match.route.name,
        "path": request.path,
        "status": status,
        "duration_seconds": round(seconds, 6),
        "bytes": size,
        "client": request.client,
        "key_id": request.principal.key_id if request.principal else None,
        "request_id": request.request_id,
    }
