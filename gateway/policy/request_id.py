"""Gives every request an id, and lets only well-formed trace context through."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count

from multidict import CIMultiDict, istr

from gateway.core.credential import holds_key
from gateway.core.message import Handler, Request, Response
from gateway.core.trace import parse_traceparent
from gateway.policy.step import Answer, Step

REQUEST_ID = istr("X-Request-ID")
_TRACEPARENT_FIELD = istr("traceparent")
_TRACESTATE_FIELD = istr("tracestate")
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{8,128}")


class RequestId:
    """Sets `request_id`, `X-Request-ID` both ways, and a `traceparent` that can be relied on.

    An id of the client's is kept if it is well formed, no API key, and given once; else it is
    replaced by `prefix`, which is random for each process, and a counter.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._numbers = count(1)

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The answer, with the request's id."""
        given = request.headers.getall(REQUEST_ID, ())
        if len(given) == 1 and _WELL_FORMED.fullmatch(given[0]) and not holds_key(given[0]):
            request_id = given[0]
        else:
            request_id = self.made()
        request.request_id = request_id
        request.headers[REQUEST_ID] = request_id
        _check_trace(request.headers)
        response = await call_next(request)
        response.headers[REQUEST_ID] = request_id
        return response

    def made(self) -> str:
        """An id that no request had yet."""
        return f"{self._prefix}{next(self._numbers):06x}"

    def step(self, request: Request, response: Response) -> Step:  # noqa: ARG002 - the protocol's
        """A new id each time, or again the client's own."""
        return _Again(request, self.made if request.request_id.startswith(self._prefix) else None)


class _Again(Step):
    # A trace context is forwarded, but no answer depends on it.
    reads = frozenset({REQUEST_ID.lower()})
    __slots__ = ("_made", "_request", "varying")

    def __init__(self, request: Request, made: Callable[[], str] | None) -> None:
        self._request = request
        self._made = made
        self.varying = {REQUEST_ID: lambda: request.request_id}

    def enter(self, at: float) -> None:  # noqa: ARG002 - an id has no time
        if self._made is not None:
            self._request.request_id = self._made()

    async def leave(self, answer: Answer) -> Answer:
        answer.headers[REQUEST_ID] = self._request.request_id
        return answer


def _check_trace(headers: CIMultiDict[str]) -> None:
    """Drop a broken trace context whole: the upstream then begins one (W3C Trace Context 4.3)."""
    given = headers.getall(_TRACEPARENT_FIELD, ())
    if len(given) != 1 or parse_traceparent(given[0]) is None:
        headers.popall(_TRACEPARENT_FIELD, None)
        headers.popall(_TRACESTATE_FIELD, None)
