"""Errors as RFC 9457 documents; nothing else makes them."""

from __future__ import annotations

from typing import Any

import orjson
from multidict import CIMultiDict

from gateway.core.error import GatewayError, InvalidRequest
from gateway.core.message import Handler, Request, Response
from gateway.policy.step import Answer, Indifferent, Step
from gateway.telemetry.log import get_logger, mask

CONTENT_TYPE = "application/problem+json"
_UNEXPECTED = "Something went wrong inside the gateway; quote the request id when you report it."


class ProblemBoundary:
    """The policy inside which errors end: a `GatewayError` as its answer, all else as a bare 500.

    A request that carries a refusal gets that, and no policy further in sees it.
    `asyncio.CancelledError` passes: there is nobody left to answer.
    """

    def __init__(self) -> None:
        self._log = get_logger("problem")

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The answer, or the problem in its place."""
        if request.refusal is not None:
            return problem(request.refusal, request)
        try:
            return await call_next(request)
        except GatewayError as error:
            return problem(error, request)
        except Exception:  # noqa: BLE001 - the boundary: whatever went wrong, there is an answer
            self._log.exception(
                "unhandled_error",
                route=request.match.name,
                method=request.method,
                path=request.path,
                **request.ids,
            )
            return problem(GatewayError(_UNEXPECTED), request)

    def step(self, request: Request, response: Response) -> Step | None:  # noqa: ARG002
        """For what was no problem; the next time it may be one."""
        return None if "problem" in request.fields else _Again(request)


class _Again(Indifferent):
    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    async def leave(self, answer: Answer) -> Answer:
        return problem(answer, self._request) if isinstance(answer, GatewayError) else answer


def unexpected(status: int) -> Response:
    """What is said where no policy could: aiohttp would not serve a request, or failed to."""
    if status < 500:
        return problem(InvalidRequest("The request cannot be understood."))
    return problem(GatewayError(_UNEXPECTED))


def problem(error: GatewayError, request: Request | None = None) -> Response:
    """An error as `application/problem+json`; its `extra` never replaces a standard member.

    Of a `request` the document names the path (`instance`), credentials masked, and the id.
    """
    document: dict[str, Any] = {
        "type": error.type,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if request is not None:
        document |= {"instance": mask(request.path), "request_id": request.request_id}
        request.fields["problem"] = error.slug
    for name, value in error.extra.items():
        document.setdefault(name, value)
    headers = CIMultiDict(error.headers)
    headers["Content-Type"] = CONTENT_TYPE
    return Response(error.status, headers, orjson.dumps(document, default=str))
