"""A WebSocket passed through: raw bytes both ways, each side no faster than the other takes them.

Nothing is decoded: pings, close codes, fragments and extensions are the two ends' own. What is
followed is where frames end, so that a drain can say goodbye between two of them.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.core.error import UpstreamError
from gateway.core.message import Tunnel
from gateway.core.websocket import GOING_AWAY, FrameTracker

MAX_WAITING_BYTES = 64 * 1024  # of the client's, before it is held back


class Client(Protocol):
    """The client's end, as the relay uses it."""

    def send(self, data: bytes) -> None:
        """Write; raises ConnectionError once the client has left."""
        ...

    async def drained(self) -> None:
        """Until it takes more; raises ConnectionError likewise."""
        ...

    def hold(self) -> None:
        """Read no more from it."""
        ...

    def let_go(self) -> None:
        """Read on."""
        ...


class Relay:
    """One WebSocket; `size` counts the bytes that went to the client."""

    def __init__(self, client: Client, tunnel: Tunnel) -> None:
        self.size = 0
        self._client = client
        self._tunnel = tunnel
        self._waiting = bytearray()
        self._more = asyncio.Event()
        self._has_ended = False
        self._down = FrameTracker()
        self._is_leaving = False

    def feed(self, data: bytes) -> None:
        """What the client sent."""
        self._waiting += data
        self._more.set()
        if len(self._waiting) > MAX_WAITING_BYTES:
            self._client.hold()

    def feed_eof(self) -> None:
        """The client sends no more."""
        self._has_ended = True
        self._more.set()

    async def run(self) -> bool:
        """Pass on until one end closes; True when the upstream ended it in order."""
        upward = asyncio.create_task(self._upward())
        try:
            await self._downward()
        except UpstreamError:  # broken off, or silent for too long: the client sees it end
            return False
        finally:
            upward.cancel()
            await asyncio.gather(upward, return_exceptions=True)
            self._tunnel.close()
        return True

    def leave(self) -> None:
        """Tell the client that the server goes away (status 1001), once no frame is cut in two.

        It answers with a Close of its own, which ends the upstream's side in order.
        """
        if not self._is_leaving:
            self._is_leaving = True
            if self._down.is_between_frames():
                self._say_goodbye()

    async def _upward(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            data = bytes(self._waiting)
            self._waiting.clear()
            if data:
                self._tunnel.write(data)
                await self._tunnel.drain()
                self._client.let_go()
            if self._has_ended and not self._waiting:
                self._tunnel.write_eof()
                return

    async def _downward(self) -> None:
        while data := await self._tunnel.read():
            if self._is_leaving:
                self._finish_frame(data)
                continue
            self._down.feed(data)
            self._send(data)
            await self._client.drained()

    def _finish_frame(self, data: bytes) -> None:
        """While leaving: the rest of the frame that was on its way, and nothing after it."""
        if self._down.is_between_frames():
            return  # the goodbye is said already
        self._send(data[: self._down.finish_frame(data)])
        if self._down.is_between_frames():
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        self._send(GOING_AWAY)

    def _send(self, data: bytes) -> None:
        self.size += len(data)
        self._client.send(data)
