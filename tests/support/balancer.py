"""What stands before many gateways: it sends nobody to one that is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count

import aiohttp

from tests.support.system import GatewayProcess


class Balancer:
    """Passes connections on, in turn, to those gateways that say they are ready."""

    def __init__(self, gateways: Sequence[GatewayProcess], look_seconds: float) -> None:
        self._gateways = gateways
        self._look_seconds = look_seconds
        self._ready: list[int] = []
        self._turn = count()
        self.port = 0

    async def watch(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                ready = []
                for gateway in self._gateways:
                    with suppress(aiohttp.ClientError):
                        async with session.get(f"{gateway.admin}/health/ready") as response:
                            if response.status == 200:
                                ready.append(int(gateway.public.rpartition(":")[2]))
                self._ready = ready
                await asyncio.sleep(self._look_seconds)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._ready[next(self._turn) % len(self._ready)]
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def balancing(
    gateways: Sequence[GatewayProcess], look_seconds: float = 0.02
) -> AsyncIterator[int]:
    """A balancer's port; it looks at each `/health/ready` so often."""
    balancer = Balancer(gateways, look_seconds)
    watching = asyncio.create_task(balancer.watch())
    while not balancer._ready:  # noqa: ASYNC110 - it is another task's loop that finds them
        await asyncio.sleep(0.01)
    server = await asyncio.start_server(balancer.take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        watching.cancel()
        server.close()
