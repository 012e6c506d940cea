"""What policies meet in tests: a handler behind them, and readings of metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import orjson
from multidict import CIMultiDict

from gateway.core.credential import Key
from gateway.core.error import StoreUnavailable
from gateway.core.freshness import StoredResponse
from gateway.core.idempotency import Entry, Reservation, StoredAnswer
from gateway.core.message import BodyStream, Request, Response
from gateway.core.window import Hit, WindowState
from gateway.store.key import KeyChanges, KeyRecord
from gateway.telemetry.metric import Metrics

Headers = Mapping[str, str] | Sequence[tuple[str, str]]


def answer(body: object = b"ok", status: int = 200, headers: Headers = ()) -> Response:
    """A response; a body that is not bytes is made JSON."""
    fields: CIMultiDict[str] = CIMultiDict(headers)
    if not isinstance(body, bytes):
        body = orjson.dumps(body)
        fields.setdefault("Content-Type", "application/json")
    return Response(status, fields, body)


def stream(*chunks: bytes, error: BaseException | None = None) -> BodyStream:
    """A body that comes in pieces, and then breaks if there is an `error`."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        for chunk in chunks:
            yield chunk
        if error is not None:
            raise error

    return BodyStream(pieces())


class Terminal:
    """The handler behind the policies: answers as told, and remembers what reached it."""

    def __init__(self, respond: Callable[[], Response | BaseException] = answer) -> None:
        self.respond = respond
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        return self._answered()

    @property
    def headers(self) -> CIMultiDict[str]:
        """Those of the one request that came."""
        [request] = self.requests
        return request.headers

    def _answered(self) -> Response:
        response = self.respond()
        if isinstance(response, BaseException):
            raise response
        return response


ARRIVAL_SECONDS = 20.0


class SlowTerminal(Terminal):
    """Answers nothing until it is let go; the answer is made then."""

    def __init__(self, respond: Callable[[], Response | BaseException] = answer) -> None:
        super().__init__(respond)
        self.gate = asyncio.Event()
        self._arrivals = asyncio.Condition()

    async def __call__(self, request: Request) -> Response:
        async with self._arrivals:
            self.requests.append(request)
            self._arrivals.notify_all()
        await self.gate.wait()
        return self._answered()

    async def arrived(self, count: int = 1) -> None:
        """Return once this many requests are waiting or were answered.

        Raises TimeoutError when they do not come, as of tasks that failed before.
        """
        async with asyncio.timeout(ARRIVAL_SECONDS), self._arrivals:
            await self._arrivals.wait_for(lambda: len(self.requests) >= count)


class AbsentStore:
    """A store of windows and responses that never answers."""

    at_hand = None

    def held(self, tag: str, key: str) -> None:
        """Nothing is known without asking."""

    async def hit(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        raise StoreUnavailable("away")

    def peek(self, tag: str, key: str) -> None:
        """Nothing is known without asking."""

    async def lookup(self, tag: str, key: str) -> Sequence[StoredResponse]:
        raise StoreUnavailable("away")

    async def store(self, tag: str, key: str, response: StoredResponse) -> None:
        raise StoreUnavailable("away")

    async def purge(self, tag: str) -> int:
        raise StoreUnavailable("away")

    async def expire(self, tag: str, now: float) -> int:
        raise StoreUnavailable("away")


class NoIdempotency:
    """A store of idempotency keys in which none is ever taken."""

    async def begin(self, wanted: Reservation, now: float) -> Entry | None:
        return None

    async def finish(self, held: Reservation, answer: StoredAnswer) -> bool:
        return True

    async def free(self, held: Reservation) -> bool:
        return True

    async def interrupt(self, held: Reservation) -> bool:
        return True

    async def prune(self, now: float) -> int:
        return 0


class NoKeys:
    """A store of keys that has none and takes none."""

    async def add(self, key: Key) -> bool:
        return False

    async def rotate(self, key_id: str, successor: Key, ends_at: float, now: float) -> bool:
        return False

    async def revoke(self, key_id: str, now: float) -> bool:
        return False

    async def get(self, key_id: str) -> KeyRecord | None:
        return None

    async def list(
        self, owner: str | None, cursor: str | None, limit: int
    ) -> tuple[Sequence[KeyRecord], str | None]:
        return (), None

    async def changes(self, after: int) -> KeyChanges:
        return KeyChanges(0, ())

    async def note_used(self, used: Mapping[str, float]) -> None:
        """Nobody asks for it."""

    async def watch(self) -> AsyncGenerator[None, None]:
        never: tuple[None, ...] = ()
        for change in never:
            yield change


def sample(metrics: Metrics, name: str, **labels: Any) -> float:
    """The value of a series, 0 while it was never counted; `name` without `gateway_`."""
    texts = {label: str(value) for label, value in labels.items()}
    return metrics.registry.get_sample_value(f"gateway_{name}", texts) or 0.0
