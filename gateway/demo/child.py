"""Processes the demo starts beside itself, and stops again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

START_SECONDS = 20.0
STOP_SECONDS = 10.0
_READY = "listening on "


class ChildError(RuntimeError):
    """A process that did not come up, with the last thing it said."""


class Child:
    """One child process. Its stdin is a pipe, so that one waiting for its end dies with us."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        cwd: Path,
        log: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a process; `log` takes its output, else its first line can be read by `url`."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=log if log is not None else asyncio.subprocess.PIPE,
            stderr=log if log is not None else asyncio.subprocess.STDOUT,
        )
        return cls(name, process)

    @property
    def ended(self) -> bool:
        """True when the process is gone."""
        return self._process.returncode is not None

    async def url(self) -> str:
        """Where it listens, from its line `listening on URL`. Raises `ChildError`."""
        stdout = self._process.stdout
        if stdout is None:
            raise ChildError(f"{self.name}: its output goes to a file")
        said = ""
        try:
            async with asyncio.timeout(START_SECONDS):
                while line := (await stdout.readline()).decode(errors="replace").strip():
                    if line.startswith(_READY):
                        return line.removeprefix(_READY)
                    said = line
        except TimeoutError:
            said = f"nothing for {START_SECONDS:g} s; then {said!r}"
        await self.stop()
        raise ChildError(f"{self.name} did not start: {said or 'it ended without a word'}")

    async def stop(self) -> None:
        """Ask it to end, and insist after a while."""
        if self.ended:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                # Reads what is left, so that a full pipe cannot keep it from ending.
                await self._process.communicate()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
