"""A webhook receiver on 127.0.0.1 that remembers what came, and misbehaves when told to."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
import standardwebhooks
from aiohttp import web
from multidict import CIMultiDictProxy

CONDITION_SECONDS = 15.0
ANY_PATH = "*"


@dataclass(frozen=True, slots=True)
class Reply:
    """An ordinary answer."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer until the receiver closes or is released."""


@dataclass(frozen=True, slots=True)
class Drip:
    """Headers at once, then a byte every `interval_seconds` without end."""

    status: int = 200
    interval_seconds: float = 0.02


@dataclass(frozen=True, slots=True)
class Flood:
    """Headers, then `size` bytes as fast as they are taken."""

    size: int
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection closed without an answer."""


Answer = Reply | Hang | Drip | Flood | Drop


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came; `at` is the loop's time in seconds."""

    method: str
    path: str
    headers: CIMultiDictProxy[str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> str:
        return self.headers["x-webhook-event"]

    @property
    def attempt(self) -> int:
        return int(self.headers["x-webhook-attempt"])

    @property
    def envelope(self) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(self.body)
        return document

    def verify(self, secret: str | bytes) -> Any:
        """The body, once the published package finds its signature right; else it raises."""
        return standardwebhooks.Webhook(secret).verify(self.body, dict(self.headers))


class Receiver:
    """Answers 204 unless told otherwise; `requests` holds what came, oldest first.

    Answers given to `script` are used up in order, a path's own before those of any path; then
    `always` holds. It must be entered within the test's loop.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.open = 0
        self.peak_open = 0
        self.port = 0
        self._scripts: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self._always: dict[str, Answer] = {ANY_PATH: Reply()}
        self._changed = asyncio.Condition()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where `/hook` is; any other path is answered as well."""
        return self.url_of("/hook")

    def url_of(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def events(self) -> list[str]:
        """The types of the events that came, in order."""
        return [request.event for request in self.requests]

    def at(self, path: str) -> list[Received]:
        """What came to one path."""
        return [request for request in self.requests if request.path == path]

    def script(self, *answers: Answer, path: str = ANY_PATH) -> None:
        """Give these answers next, each once."""
        self._scripts[path].extend(answers)

    def fail(self, times: int, status: int = 500, *, path: str = ANY_PATH) -> None:
        """Answer the next `times` requests with `status`."""
        self.script(*[Reply(status)] * times, path=path)

    def always(self, answer: Answer, *, path: str = ANY_PATH) -> None:
        """Give this answer whenever no script is left."""
        self._always[path] = answer

    def release(self) -> None:
        """Let what hangs and drips end."""
        self._released.set()

    async def wait_for(self, number: int) -> Sequence[Received]:
        """The first `number` requests. Raises TimeoutError when they do not come."""
        await self.wait_until(lambda: len(self.requests) >= number)
        return self.requests[:number]

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds; it is asked at each request and answer."""
        async with asyncio.timeout(CONDITION_SECONDS), self._changed:
            await self._changed.wait_for(condition)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.release()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.open += 1
        self.peak_open = max(self.peak_open, self.open)
        try:
            received = Received(
                request.method,
                request.path,
                request.headers,
                await request.read(),
                asyncio.get_running_loop().time(),
            )
            self.requests.append(received)
            answer = self._next(request.path)
            await self._notify()
            return await self._answer(request, answer)
        finally:
            self.open -= 1
            await self._notify()

    def _next(self, path: str) -> Answer:
        for key in (path, ANY_PATH):
            if self._scripts[key]:
                return self._scripts[key].popleft()
        return self._always.get(path, self._always[ANY_PATH])

    async def _answer(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        match answer:
            case Reply(status, headers, body):
                return web.Response(status=status, headers=headers, body=body)
            case Hang():
                await self._released.wait()
                return web.Response(status=204)
            case Drop():
                if request.transport is not None:
                    request.transport.close()
                return web.Response(status=204)
            case Drip(status, interval):
                return await self._stream(request, web.StreamResponse(status=status), interval)
            case Flood(size, status, headers):
                response = web.StreamResponse(status=status, headers=headers)
                return await self._pour(request, response, size)

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, interval_seconds: float
    ) -> web.StreamResponse:
        await response.prepare(request)
        try:
            while not self._released.is_set():
                await response.write(b".")
                await asyncio.sleep(interval_seconds)
        except ConnectionError:
            return response  # the sender's deadline passed, as it should
        return response

    async def _pour(
        self, request: web.Request, response: web.StreamResponse, size: int
    ) -> web.StreamResponse:
        await response.prepare(request)
        chunk = b"x" * 65536
        try:
            for start in range(0, size, len(chunk)):
                await response.write(chunk[: size - start])
        except ConnectionError:
            return response  # the sender has read enough
        return response

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
