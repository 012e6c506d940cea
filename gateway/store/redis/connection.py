"""One connection: what is sent in the same turn of the loop leaves in one write.

Replies come in the order of the commands (RESP2), so a connection serves any number of callers at
once, and needs no pool. A reply that is late ends the connection: it could not be told from the
next one's any more.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import hiredis

from gateway.store.redis.failure import Lost, ReplyError

Part: TypeAlias = bytes | str | int | float
MAX_WAITING = 20_000  # commands without a reply: beyond, the server is not keeping up


def pack(parts: Sequence[Part]) -> bytes:
    """A command as the wire has it."""
    return cast("bytes", hiredis.pack_command(tuple(parts)))  # type: ignore[arg-type]  # its stub says a tuple of one


class Connection(asyncio.Protocol):
    """Made by `connect`; `take_push` gets what comes unasked for (a subscription's messages)."""

    def __init__(
        self, timeout_seconds: float, take_push: Callable[[Any], None] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_seconds = timeout_seconds
        self._take_push = take_push
        self._reader = hiredis.Reader(protocolError=Lost, replyError=ReplyError)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[Lost] = self._loop.create_future()

    @property
    def is_open(self) -> bool:
        """True while commands can be sent."""
        return not self.lost.done()

    def send(self, command: bytes) -> asyncio.Future[Any]:
        """The reply to come: a value, or a `ReplyError` as a value. It may raise `Lost`."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        if self.lost.done():
            reply.set_exception(self.lost.result())
            return reply
        if len(self._waiting) >= MAX_WAITING:
            reply.set_exception(Lost(f"{MAX_WAITING} commands wait for a reply already"))
            return reply
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(command)
        self._waiting.append((reply, self._loop.time() + self._timeout_seconds))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_seconds, self._check_timeout)
        return reply

    async def send_patiently(self, command: bytes, seconds: float) -> Any:
        """The reply, if it comes within `seconds`; else raises `Lost`, and the reply is dropped.

        The connection stays: a later reply still is the oldest command's.
        """
        reply = self.send(command)
        timer = self._loop.call_later(seconds, _give_up, reply, seconds)
        try:
            return await reply
        finally:
            timer.cancel()

    def write(self, command: bytes) -> None:
        """Send what is answered by pushes alone, such as SUBSCRIBE."""
        if self._transport is not None and not self.lost.done():
            self._transport.write(command)

    def end(self, reason: str) -> None:
        """Give up what waits, and close."""
        if self.lost.done():
            return
        error = Lost(reason)
        self.lost.set_result(error)
        if self._timer is not None:
            self._timer.cancel()
        self._unsent.clear()
        for reply, _ in self._waiting:
            if not reply.done():
                reply.set_exception(error)
        self._waiting.clear()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        self.end(f"the connection was lost: {exc}" if exc else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        try:
            self._reader.feed(data)
            while (value := self._reader.gets()) is not False:
                self._take(value)
        except Lost as error:  # not RESP: another program listens on this port
            self.end(f"no reply that can be read: {error}")

    def _take(self, value: Any) -> None:
        if self._waiting:
            reply, _ = self._waiting.popleft()
            if not reply.done():
                reply.set_result(value)
        elif self._take_push is not None:
            self._take_push(value)
        else:
            raise Lost("it came unasked for")

    def _flush(self) -> None:
        if self._transport is not None and self._unsent:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _check_timeout(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][1] - self._loop.time()
        if left <= 0:
            self.end(f"no reply within {self._timeout_seconds:g} s")
        else:
            self._timer = self._loop.call_later(left, self._check_timeout)


def _give_up(reply: asyncio.Future[Any], seconds: float) -> None:
    if not reply.done():
        reply.set_exception(Lost(f"no reply within {seconds:g} s"))


async def connect(
    host: str,
    port: int,
    *,
    greeting: Sequence[Sequence[Part]],
    tls: ssl.SSLContext | None,
    connect_seconds: float,
    timeout_seconds: float,
    take_push: Callable[[Any], None] | None = None,
) -> Connection:
    """A connection on which every command of the `greeting` has succeeded.

    Raises `Lost` when there is none within `connect_seconds`, `ReplyError` for a greeting refused.
    """
    loop = asyncio.get_running_loop()
    connection = Connection(timeout_seconds, take_push)
    try:
        async with asyncio.timeout(connect_seconds):
            await loop.create_connection(lambda: connection, host, port, ssl=tls)
            replies = await asyncio.gather(*(connection.send(pack(each)) for each in greeting))
    except TimeoutError as error:
        connection.end("it took too long to connect")
        raise Lost(f"no connection within {connect_seconds:g} s") from error
    except OSError as error:  # refused, unreachable, no such name, a certificate that is not good
        connection.end("no connection")
        raise Lost(str(error) or type(error).__name__) from error
    except BaseException:  # whoever gives up, cancelled or not, leaves no half-open socket
        connection.end("given up")
        raise
    for reply in replies:
        if isinstance(reply, ReplyError):
            connection.end("the greeting was refused")
            raise reply
    return connection
