"""One worker process, as its parent has it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from yarl import URL

import gateway
from gateway.telemetry.log import get_logger
from gateway.worker.lifeline import READY
from gateway.worker.place import Place

_TELL_SECONDS = 5.0
_log = get_logger("workers")
# What a request over the control socket raises when its worker is gone, or does not answer.
Silent = (aiohttp.ClientError, OSError, TimeoutError)


class Member:
    """A process in a slot; `name` tells it from those that have had the slot before.

    `exit_code` is negative for a signal, None while it runs. `last` is the exposition that it left
    at its end, empty when it was killed. `heard_at` and `ready_at` are loop time.
    """

    def __init__(self, slot: int, name: str, process: asyncio.subprocess.Process) -> None:
        self.slot = slot
        self.name = name
        self.pid = process.pid
        self.exit_code: int | None = None
        self.last = b""
        self.heard_at = 0.0
        self.ready_at: float | None = None
        self.is_leaving = self.is_hung = False
        self._process = process
        self._ready = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._ending: asyncio.Task[int]

    @classmethod
    async def start(cls, place: Place, number: int, config: Path, sockets: Sequence[int]) -> Member:
        """Start a process in a slot, which inherits `sockets`. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            place = Place(
                place.slot,
                place.workers,
                theirs.fileno(),
                place.control,
                place.public,
                place.socket,
            )
            process = await asyncio.create_subprocess_exec(
                *_command(),
                *("--config", str(config), *place.arguments()),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for the parent alone
                pass_fds=(theirs.fileno(), *sockets),
            )
        member = cls(place.slot, f"{place.slot}-{number}", process)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        member._ending = asyncio.create_task(member._listen(reader, writer))
        member._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(place.control)),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return member

    async def is_ready(self, seconds: float | None = None) -> bool:
        """True once it serves; False when it ended before that, or took longer."""
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait(
                {ready, self._ending}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
        return self.serves

    @property
    def serves(self) -> bool:
        """True from when it is ready until it is told to end, or does."""
        return self._ready.is_set() and not self.is_leaving and self.exit_code is None

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.shield(self._ending)

    async def stop(self, seconds: float) -> bool:
        """Have it drain and end; False when it had to be killed after so many seconds."""
        self.terminate()
        done, _ = await asyncio.wait({self._ending}, timeout=seconds)
        if done:
            return True
        self.kill()
        await self.ended()
        return False

    def terminate(self) -> None:
        """SIGTERM: it finishes what it has, and ends."""
        self.is_leaving = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.is_leaving = True
        self._signal(signal.SIGKILL)

    def ask(self, method: str, path: str, seconds: float, **given: Any) -> Any:
        """A request over its control socket, as aiohttp has it. Raises one of `Silent`."""
        assert self._session is not None
        if self.exit_code is not None:
            raise ConnectionError(f"worker {self.slot} has ended")
        return self._session.request(
            method,
            URL(f"http://worker{path}", encoded=True),
            timeout=aiohttp.ClientTimeout(total=seconds),
            allow_redirects=False,
            **given,
        )

    async def tell(self, method: str, path: str, document: object = None) -> bool:
        """Have it do something over its control socket; False when it did not take it."""
        try:
            async with self.ask(method, path, _TELL_SECONDS, data=orjson.dumps(document)) as answer:
                answer.raise_for_status()
        except Silent as error:
            _log.info("worker_untold", worker=self.slot, path=path, error=str(error))
            return False
        return True

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """Until it has ended; the exit code."""
        with suppress(ConnectionError):
            if await reader.readline() == READY:
                self.ready_at = self.heard_at = asyncio.get_running_loop().time()
                self._ready.set()
            self.last = await reader.read()
        self.exit_code = await self._process.wait()
        writer.close()
        if self._session is not None:
            await self._session.close()
        return self.exit_code

    def _signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def _command() -> Sequence[str]:
    """How a worker is started: of the very package that this process runs."""
    root = Path(gateway.__file__).resolve().parents[1]
    found_here = Path(sys.path[0] or os.curdir).resolve() == root
    # Unless the package is found in the working directory, nothing there may take its place.
    return [sys.executable, *(() if found_here else ("-P",)), "-m", "gateway", "worker"]
