"""One channel's messages, over a connection of its own that heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.core.error import StoreUnavailable
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Connection, pack
from gateway.store.redis.failure import Lost
from gateway.telemetry.log import get_logger

PING_SECONDS = 2.0  # silence for longer than two of these is a connection that died unnoticed
RETRY_SECONDS = 0.5


class Subscription:
    """Subscribed while `run` runs.

    `hear` gets each message, and raises ValueError for one it cannot read. Redis keeps none for
    those who are away: `missed` is called once it is subscribed again.
    """

    def __init__(
        self,
        client: RedisClient,
        channel: bytes,
        hear: Callable[[bytes], None],
        missed: Callable[[], None],
    ) -> None:
        self._client = client
        self._channel = channel
        self._hear = hear
        self._missed = missed
        self._alive = asyncio.Event()
        self._was_subscribed = False
        self._log = get_logger("redis")

    async def run(self) -> None:
        """Listen until cancelled; log the first failure of a row."""
        is_away = False
        while True:
            try:
                await self._listen()
            except (Lost, StoreUnavailable) as error:
                if not is_away or self._was_subscribed:
                    self._log.warning(
                        "subscription_lost", channel=self._channel.decode(), error=str(error)
                    )
                is_away, self._was_subscribed = True, False
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        """Until the connection is lost. Raises `Lost` or `StoreUnavailable`."""
        connection = await self._client.open_push(self._take)
        connection.lost.add_done_callback(lambda _: self._alive.set())
        try:
            await self._ask(connection, "SUBSCRIBE", self._channel)
            self._was_subscribed = True
            self._missed()
            while True:
                await self._ask(connection, "PING")
                await asyncio.wait({connection.lost}, timeout=PING_SECONDS)
        finally:
            connection.end("the subscription ended")

    async def _ask(self, connection: Connection, *command: bytes | str) -> None:
        """Send a command and wait until something comes: its reply is a push like any other."""
        self._alive.clear()
        connection.write(pack(command))
        try:
            async with asyncio.timeout(2 * PING_SECONDS):
                await self._alive.wait()
        except TimeoutError as error:
            raise Lost("it went silent") from error
        if connection.lost.done():
            raise connection.lost.result()

    def _take(self, push: Any) -> None:
        self._alive.set()
        if isinstance(push, list) and push[:1] == [b"message"]:
            try:
                self._hear(push[2])
            except ValueError as error:
                self._log.warning(
                    "message_unreadable", channel=self._channel.decode(), error=str(error)
                )
