"""Workers without processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from gateway.worker.member import Member

Answer = Callable[[str, str, bytes], bytes]


class Response:
    def __init__(self, body: bytes) -> None:
        self.status = 200
        self._body = body

    def raise_for_status(self) -> None:
        """It is a 200."""

    async def read(self) -> bytes:
        return self._body


class FakeMember(Member):
    """Ends when told; `answers` is what it says over its socket, which may raise."""

    def __init__(self, slot: int = 0, *, becomes_ready: bool = True) -> None:
        self.slot = slot
        self.name = f"{slot}-{id(self)}"
        self.pid = 1000 + slot
        self.exit_code = None
        self.last = b""
        self.heard_at = 0.0
        self.ready_at = 0.0 if becomes_ready else None
        self.is_leaving = self.is_hung = False
        self.killed = False
        self.asked: list[tuple[str, str, bytes]] = []
        self.answers: Answer = lambda *_: b"{}"
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._becomes_ready = becomes_ready
        if not becomes_ready:
            self.die(1)

    def die(self, code: int = -9) -> None:
        self.exit_code = code
        if not self._ended.done():
            self._ended.set_result(code)

    @property
    def serves(self) -> bool:
        return self._becomes_ready and not self.is_leaving and self.exit_code is None

    async def is_ready(self, seconds: float | None = None) -> bool:
        return self.serves

    async def ended(self) -> int:
        return await asyncio.shield(self._ended)

    async def stop(self, seconds: float) -> bool:
        self.is_leaving = True
        self.die(0)
        return True

    def kill(self) -> None:
        self.killed = self.is_leaving = True
        self.die(-9)

    def ask(
        self, method: str, path: str, seconds: float, **given: Any
    ) -> AbstractAsyncContextManager[Any]:
        return self._asked(method, path, given.get("data") or b"")

    @asynccontextmanager
    async def _asked(self, method: str, path: str, data: bytes) -> AsyncIterator[Response]:
        self.asked.append((method, path, data))
        yield Response(self.answers(method, path, data))
