"""A TCP relay between a gateway and its Redis, that can be cut and mended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self


class Relay:
    """Carries bytes to `port` of 127.0.0.1 while it is not cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._is_mute = False
        self.port = 0

    def cut(self) -> None:
        """Drop every connection, and refuse further ones."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mute(self) -> None:
        """Carry what is asked, and swallow every answer."""
        self._is_mute = True

    def mend(self) -> None:
        """Carry again."""
        self._is_cut = self._is_mute = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        await asyncio.gather(*self._carrying)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back}
        self._writers |= both
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer, lambda: self._is_mute))
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()


async def _pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    swallows: Callable[[], bool] = lambda: False,
) -> None:
    try:
        while data := await reader.read(65536):
            if not swallows():
                writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # cut, or the other side went
    finally:
        writer.transport.abort()
