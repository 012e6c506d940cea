"""Convex's HTTP API over the functions of `convex/`, as a child process on a socket."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "convex_server"
ARTIFACT = FOLDER / "dist" / "server.js"
READY_SECONDS = 15.0
STOP_SECONDS = 15.0
CONDITION_SECONDS = 15.0
POLL_SECONDS = 0.01
BUILD = "`make install`, or `npm ci && npm run build` in tests/convex_server"


class ConvexServerError(RuntimeError):
    """The server ended or did not come up, or refused an instruction; the text says which."""


def obstacle() -> str | None:
    """Why the server cannot be started here, in one sentence; None when nothing is in the way."""
    if shutil.which("node") is None:
        return "the Convex test server needs node, and there is none on PATH"
    if not (FOLDER / "node_modules").is_dir():
        return f"the Convex test server's packages are not installed: {BUILD}"
    if not ARTIFACT.is_file():
        return f"the Convex test server is not built: {BUILD}"
    return None


def is_stale() -> bool:
    """True when the code differs from what the server was built from: `build.mjs` noted it."""
    digest = hashlib.sha256()
    for folder in (FOLDER / "src", ROOT / "convex"):
        found = {
            path.relative_to(folder).as_posix(): path
            for path in folder.rglob("*")
            if path.suffix in {".ts", ".js"}
        }
        for name in sorted(found):
            digest.update(name.encode() + b"\0" + found[name].read_bytes())
    noted = FOLDER / "dist" / "sources.sha256"
    return not noted.is_file() or noted.read_text() != digest.hexdigest()


def require_server() -> None:
    """Skip the test that asks, saying why; fail it where CI promises that nothing is missing."""
    reason = obstacle()
    if reason is not None:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)
    if is_stale():
        pytest.fail(f"the Convex test server was built from other sources: {BUILD}")


class ConvexServer:
    """One deployment in memory on 127.0.0.1, with faults to order.

    `url` is what the gateway calls the deployment's URL. The port is chosen at the first start and
    kept over restarts; the rows are not. `production` hides error messages as a production
    deployment does. The server ends with its stdin, so none outlives a test run that was killed.
    """

    def __init__(self, *, deploy_key: str = "test:key|0123", production: bool = False) -> None:
        self.deploy_key = deploy_key
        self._production = production
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The deployment's base URL, without a closing slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The running server's process id."""
        if self._process is None:
            raise ConvexServerError("the server is not running")
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return once connections are accepted. Raises ConvexServerError."""
        if self._process is not None:
            raise ConvexServerError("the server is already running")
        flags = ["--production"] if self._production else []
        process = subprocess.Popen(
            ["node", ARTIFACT, "--port", str(self.port), "--deploy-key", self.deploy_key, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._process = process
        assert process.stdout is not None
        # Killing a server that says nothing ends the read below.
        watchdog = threading.Timer(READY_SECONDS, process.kill)
        watchdog.start()
        try:
            line = process.stdout.readline().decode().strip()
        finally:
            watchdog.cancel()
        if not line.startswith("listening on http://127.0.0.1:"):
            self.stop()
            raise ConvexServerError(f"the server did not come up; it said {line!r}")
        self.port = int(line.rpartition(":")[2])

    def stop(self) -> None:
        """Stop and reap the server; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    async def reset(self) -> None:
        """Forget rows, faults and counts."""
        await self._control("POST", "/__reset", {})

    async def dump(self, table: str) -> list[dict[str, Any]]:
        """Every row of `table`, oldest first, with `_id` and `_creationTime`; numbers: float."""
        rows: list[dict[str, Any]] = await self._control("GET", f"/__dump?table={table}")
        return rows

    async def stats(self) -> dict[str, Any]:
        """What was seen since the last reset.

        `paths` (function path to received, succeeded, failed, faulted), `open` and `peakOpen`
        (requests in flight, now and at most), `faults` (armed and not yet used up).
        """
        seen: dict[str, Any] = await self._control("GET", "/__stats")
        return seen

    async def fault(
        self, mode: str, *, count: int = 1, path: str | None = None, **details: object
    ) -> None:
        """Let a fault strike the next `count` calls, of function `path` alone when given.

        Modes: a status from "400" to "599" (details `code`, `message`, `retry_after`), "delay"
        (`seconds`), "hold" (until `clear_faults`), "drop" (connection closed, nothing run),
        "lost_reply" (run and committed, then closed), "truncated" (run, half the answer), "html"
        (not run, 200), "error" (not run, a function's error; `message`).
        """
        target = {} if path is None else {"path": path}
        await self._control("POST", "/__fault", {"mode": mode, "count": count} | target | details)

    async def clear_faults(self) -> None:
        """Disarm every fault, and let what is held go on."""
        await self._control("POST", "/__fault", {"mode": "clear"})

    async def wait_until(self, condition: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        """The first stats for which `condition` holds. Raises TimeoutError."""
        async with asyncio.timeout(CONDITION_SECONDS):
            # The event happens in another process: there is nothing here to await.
            while not condition(seen := await self.stats()):  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
        return seen

    async def _control(self, method: str, path: str, body: object = None) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body) as response,
        ):
            answer = await response.json()
            if response.status != 200:
                raise ConvexServerError(f"{method} {path}: {answer['message']}")
            return answer
