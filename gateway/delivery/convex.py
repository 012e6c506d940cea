"""Convex's functions over its HTTP API, with our own pooled client.

`POST {deployment}/api/mutation|query` with `{"path", "args", "format": "json"}`. A function's own
error is an answer of 200 (or 560) with `status: "error"`; what is wrong with the call is a status.
Source: docs.convex.dev/http-api.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import orjson

from gateway.core.retry import ErrorKind
from gateway.delivery.convex_error import (
    ConvexConfigurationError,
    ConvexError,
    ConvexFunctionError,
    ConvexNotDeployed,
    ConvexUnavailable,
    decode,
    not_convex,
    of_function,
    of_status,
)
from gateway.delivery.failure import EXCHANGE_ERRORS, describe, error_kind
from gateway.delivery.header import USER_AGENT
from gateway.settings.delivery import Convex

RESPONSE_LIMIT_BYTES = 16 * 1024 * 1024  # of what a function may return
_FUNCTION_STATUS = (200, 560)

__all__ = [
    "ConvexClient",
    "ConvexConfigurationError",
    "ConvexError",
    "ConvexFunctionError",
    "ConvexNotDeployed",
    "ConvexUnavailable",
    "HistoryPage",
    "HistoryQuery",
]

Arguments = Mapping[str, Any]
_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which jobs to look up; None means any. From `since` (included) to `until`, epoch seconds."""

    job_id: str | None = None
    video_id: str | None = None
    owner: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    cursor: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Jobs as `jobs:history` answers them, youngest first; `cursor` None: there are no more."""

    jobs: tuple[Mapping[str, Any], ...]
    cursor: str | None


class ConvexClient:
    """One deployment. Every method raises a ConvexError of the kind that says what to do about it.

    A mutation may have been committed although its reply was lost: the functions take the same
    arguments twice without harm.
    """

    def __init__(self, settings: Convex) -> None:
        if settings.url is None:
            raise ValueError("convex.url is not set")
        self._base = settings.url.rstrip("/")
        self._functions = settings.functions
        self._timeout_seconds = settings.timeout
        self._key = settings.deploy_key
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool."""
        headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
        if self._key is not None:
            headers["Authorization"] = f"Convex {self._key.get_secret_value()}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # see _post
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection; harmless when it was never started."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def update_job_progress_detailed(
        self, arguments: Arguments, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Any:
        """Every progress field of a job in one mutation; `{applied, sequence}`."""
        return await self.mutate("update_progress", arguments, headers)

    async def track_job_analytics(
        self, arguments: Arguments, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Any:
        """What a finished job took, once; `{applied, sequence}`."""
        return await self.mutate("track_analytics", arguments, headers)

    async def store_webhook_config(
        self, arguments: Arguments, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Any:
        """A webhook's newest revision, or its deletion; `{applied, revision}`."""
        return await self.mutate("store_webhook_config", arguments, headers)

    async def get_job_history(self, query: HistoryQuery) -> HistoryPage:
        """A page of the jobs that fit the query."""
        wanted = {
            "jobId": query.job_id,
            "videoId": query.video_id,
            "owner": query.owner,
            "status": query.status,
            "from": None if query.since is None else query.since * 1000,
            "to": None if query.until is None else query.until * 1000,
        }
        arguments: dict[str, Any] = {k: value for k, value in wanted.items() if value is not None}
        arguments["paginationOpts"] = {"numItems": query.limit, "cursor": query.cursor}
        page = await self.call("query", self._path("history"), arguments)
        return HistoryPage(tuple(page["page"]), None if page["isDone"] else page["continueCursor"])

    async def mutate(
        self, operation: str, arguments: Arguments, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Any:
        """Run the mutation that the settings name for an operation of `convex.functions`."""
        return await self.call("mutation", self._path(operation), arguments, headers)

    async def call(
        self,
        kind: Literal["mutation", "query", "action"],
        path: str,
        arguments: Arguments,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Any:
        """Run any function of the deployment; the value that it returns."""
        body = orjson.dumps({"path": path, "args": arguments, "format": "json"})
        status, retry_after, answer = await self._post(f"{self._base}/api/{kind}", body, headers)
        if status in _FUNCTION_STATUS:
            return _value(status, answer)
        raise of_status(status, answer, retry_after)

    async def _post(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str | None, bytes]:
        assert self._session is not None, "start() comes first"
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.post(
                    url, data=io.BytesIO(body), headers=headers, allow_redirects=False
                ) as response,
            ):
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > RESPONSE_LIMIT_BYTES:
                        raise ConvexUnavailable("answered too much", ErrorKind.RESPONSE_TOO_LARGE)
                retry_after = response.headers.get("Retry-After")
                return response.status, retry_after, self._without_key(bytes(answer))
        except EXCHANGE_ERRORS as error:
            kind = error_kind(error)
            detail = describe(error)
            if kind is ErrorKind.TIMEOUT:
                detail = f"no complete answer within {self._timeout_seconds:g} s"
            raise ConvexUnavailable(detail, kind) from error

    def _path(self, operation: str) -> str:
        path: str | None = getattr(self._functions, operation)
        if path is None:
            detail = f"convex.functions.{operation} is null"
            raise ConvexConfigurationError(detail, remedy="name a deployed function there")
        return path

    def _without_key(self, answer: bytes) -> bytes:
        """What an answer says may be logged; a proxy that echoes the request must not leak."""
        if self._key is None:
            return answer
        return answer.replace(self._key.get_secret_value().encode(), b"[deploy key]")


def _value(status: int, answer: bytes) -> Any:
    document = decode(answer)
    match document.get("status"):
        case "success":
            return document.get("value")
        case "error":
            message = str(document.get("errorMessage") or "no message")
            raise of_function(status, message, document.get("errorData"))
    raise not_convex(status)
