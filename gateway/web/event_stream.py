"""Open streams of server-sent events, and how they end when the process does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

from gateway.core.message import BodyStream, Response
from gateway.job.feed import Feed

# A comment, and when to come back: sooner than browsers would by themselves (HTML, section 9.2.6).
HINT = b": the gateway restarts, please reconnect\nretry: 1000\n\n"
_EVENT_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")


class EventStreams:
    """Knows every open stream of events, so that a drain can end each between two events."""

    def __init__(self) -> None:
        self._open: set[_Events | Feed] = set()
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._open)

    def adopt(self, response: Response, *, is_events: bool) -> Response:
        """The answer; as one that `end` ends, if it streams events that nothing has encoded."""
        body = response.body
        headers = response.headers
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        events = is_events or kind == "text/event-stream"
        if isinstance(body, bytes) or not events:
            return response
        if "Content-Encoding" in headers or "Content-Length" in headers:
            return response
        stream = body if isinstance(body, Feed) else _Events(body)
        self._open.add(stream)
        stream.closers.append(partial(self._open.discard, stream))
        if self._is_ending:
            stream.end(HINT)
        response.body = stream
        return response

    def end(self) -> None:
        """End every stream once its present event is out, those still to come too."""
        self._is_ending = True
        for stream in list(self._open):
            stream.end(HINT)


class _Events(BodyStream):
    """A stream that can be ended while its reader waits for the next event."""

    def __init__(self, inner: BodyStream) -> None:
        super().__init__(_pieces(inner))
        self._inner = inner
        self._tail = b"\n\n"
        self._is_ending = self._is_ended = self._is_interrupted = False
        self._reader: asyncio.Task[object] | None = None

    async def __anext__(self) -> bytes:
        if self._is_ended:
            raise StopAsyncIteration
        if self._is_ending and self._is_between_events:
            return self._hint()
        self._reader = asyncio.current_task()
        try:
            piece = await super().__anext__()
        except asyncio.CancelledError:
            if not self._is_interrupted or self._reader is None or self._reader.uncancel():
                raise
            return self._hint()
        finally:
            self._reader = None
        self._tail = (self._tail + piece)[-4:]
        return piece

    def end(self, _hint: bytes) -> None:
        """After the event that is on its way, or at once when there is none."""
        self._is_ending = True
        if self._reader is not None and self._is_between_events and not self._is_interrupted:
            self._is_interrupted = True
            self._reader.cancel()

    async def aclose(self) -> None:
        """As any body."""
        try:
            await super().aclose()
        finally:
            await self._inner.aclose()

    @property
    def _is_between_events(self) -> bool:
        return self._tail.endswith(_EVENT_ENDS)

    def _hint(self) -> bytes:
        self._is_ended = self.is_complete = self._inner.is_complete = True
        return HINT


async def _pieces(inner: BodyStream) -> AsyncGenerator[bytes, None]:
    async for piece in inner:
        yield piece
