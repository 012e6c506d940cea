"""What the demo stands on: the stand-in upstream, the gateway, Convex and a receiver."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from gateway.core.credential import format_key, hash_key
from gateway.core.signature import generate_secret
from gateway.demo.child import START_SECONDS, Child, ChildError
from gateway.demo.receiver import Received, Receiver

ROOT = Path(__file__).resolve().parents[2]
_CONVEX = ROOT / "tests" / "convex_server" / "dist" / "server.js"
_LOOK_SECONDS = 0.05
UPSTREAM_SPEED = 2.5
FLAKY_FAILURES = 2


@dataclass(frozen=True, slots=True)
class Convex:
    """The Convex server over the project's own functions."""

    url: str
    deploy_key: str


class Stage:
    """Everything running, from `async with` to its end; files live in `folder`."""

    def __init__(self, folder: Path, heard: Callable[[Received], None]) -> None:
        self._folder = folder
        self._stack = AsyncExitStack()
        self.receiver = Receiver(FLAKY_FAILURES, heard)
        self.key = format_key(secrets.token_bytes(24))
        self.convex: Convex | None = None
        self.no_convex = ""
        self.public = ""
        self.admin = ""
        self.session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:  # a Ctrl-C too must not leave processes behind
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def call(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """A client's request through the gateway; the status and the decoded answer."""
        async with self.session.request(
            method, self.public + path, json=document, headers={"X-API-Key": self.key}
        ) as response:
            body = await response.read()
            return response.status, orjson.loads(body) if body else None

    async def metrics(self) -> str:
        """The gateway's metrics as Prometheus would read them."""
        async with self.session.get(self.admin + "/metrics") as response:
            return await response.text()

    async def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows that Convex holds."""
        if self.convex is None:
            return []
        async with self.session.get(f"{self.convex.url}/__dump?table={table}") as response:
            rows: list[dict[str, Any]] = await response.json()
            return rows

    async def _start(self) -> None:
        self.session = await self._stack.enter_async_context(aiohttp.ClientSession())
        await self.receiver.start()
        self._stack.push_async_callback(self.receiver.stop)
        upstream, self.convex = await asyncio.gather(self._upstream(), self._convex())
        await self._gateway(upstream)

    async def _upstream(self) -> str:
        if not (ROOT / "examples" / "analysis_api").is_dir():
            raise ChildError(
                "gateway demo needs a checkout of the project: examples/analysis_api is not here"
            )
        child = await Child.start(
            "the stand-in upstream",
            [
                sys.executable,
                "-m",
                "examples.analysis_api",
                "--port",
                "0",
                "--speed",
                str(UPSTREAM_SPEED),
            ],
            cwd=ROOT,
        )
        self._stack.push_async_callback(child.stop)
        return await child.url()

    async def _convex(self) -> Convex | None:
        node = shutil.which("node")
        if node is None:
            self.no_convex = "Node is not installed"
            return None
        if not _CONVEX.is_file():
            self.no_convex = "its test server is not built; `make demo` builds it"
            return None
        key = f"demo:demo|{secrets.token_hex(8)}"
        command = [node, str(_CONVEX), "--port", "0", "--deploy-key", key]
        child = await Child.start("Convex", command, cwd=_CONVEX.parent)
        self._stack.push_async_callback(child.stop)
        return Convex(await child.url(), key)

    async def _gateway(self, upstream: str) -> None:
        """The gateway as an operator starts it: settings by file and environment."""
        ports = self._folder / "ports.json"
        log = self._stack.enter_context((self._folder / "gateway.log").open("wb"))
        child = await Child.start(
            "the gateway",
            [
                sys.executable,
                "-m",
                "gateway",
                "serve",
                "--config",
                str(ROOT / "gateway.yaml"),
                "--port-file",
                str(ports),
            ],
            cwd=ROOT,
            log=log,
            environment=self._environment(upstream),
        )
        self._stack.push_async_callback(child.stop)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_SECONDS
        while not ports.is_file():
            if child.ended or loop.time() > deadline:
                said = (self._folder / "gateway.log").read_text(errors="replace")[-2000:]
                raise ChildError(f"the gateway did not start:\n{said}")
            await asyncio.sleep(_LOOK_SECONDS)
        listening = orjson.loads(ports.read_bytes())
        self.public = f"http://127.0.0.1:{listening['public']}"
        self.admin = f"http://127.0.0.1:{listening['admin']}"

    def _environment(self, upstream: str) -> dict[str, str]:
        policies = self._folder / "policies"
        shutil.copytree(ROOT / "policies", policies)
        scopes = "[jobs:read, jobs:write, webhooks]"
        (policies / "auth.yaml").write_text(
            "public: [{methods: [GET], path: /health}]\n"
            "scopes: {job-create: [jobs:write], webhooks: [webhooks]}\n"
            "entries:\n"
            f"  - {{id: demo, owner: demo, scopes: {scopes}, hash: {hash_key(self.key)}}}\n"
        )
        environment = {
            "GATEWAY_ENV": "demo",
            "GATEWAY__UPSTREAM__URL": upstream,
            "GATEWAY__STORE__SQLITE__PATH": str(self._folder / "gateway.db"),
            "GATEWAY__POLICIES__DIRECTORY": str(policies),
            "WEBHOOK_SECRET_KEY": generate_secret(secrets.token_bytes(24)),
        }
        if self.convex is not None:
            environment["GATEWAY__CONVEX__URL"] = self.convex.url
            environment["GATEWAY__CONVEX__DEPLOY_KEY"] = self.convex.deploy_key
        return environment
