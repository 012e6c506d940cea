"""A gateway within the test's own process, and an upstream whose jobs stand as the test says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.app.gateway import Gateway
from gateway.settings.load import load, load_policies
from tests.support.system import SECRET_KEY, GatewayProcess


class GatewayInside(GatewayProcess):
    """As `GatewayProcess`, but its parts can be looked at and held up; it cannot be killed."""

    gateway: Gateway
    lines: list[Mapping[str, Any]]

    async def start(self) -> None:
        """Start; the store in `folder` is taken up again."""
        self.prepare()
        ports = await self.gateway.start()
        self.public = f"http://127.0.0.1:{ports['public']}"
        self.admin = f"http://127.0.0.1:{ports['admin']}"

    def prepare(self) -> None:
        """Make it, so that a test can reach into it before it starts."""
        if hasattr(self, "gateway"):
            return
        config = self._write_files()
        environment = self._overrides.get("environment", {})
        settings = load(config, {"WEBHOOK_SECRET_KEY": SECRET_KEY, **environment})
        policies = load_policies(self.folder / "policies")
        self.lines = []
        self.gateway = Gateway(settings, policies, self._write)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def close(self) -> None:
        """Stop, draining."""
        if self._session is not None:
            await self._session.close()
        if hasattr(self, "gateway"):
            await self.gateway.stop()

    def _write(self, fields: Mapping[str, Any], line: Mapping[str, Any]) -> None:
        self.lines.append({**line, **fields})


class StatusUpstream:
    """Creates jobs and answers for each what the test put into `stages`, whoever asks.

    `asked` counts requests by route. While `gate` is not set a status waits, its answer made
    already. `code` is the status code of all of them. It has no streams.
    """

    def __init__(self) -> None:
        self.stages: dict[str, tuple[str, float]] = {}
        self.asked: Counter[str] = Counter()
        self.statuses: list[web.Request] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.code = 200
        self._server = TestServer(self._application(), host="127.0.0.1")

    @property
    def url(self) -> str:
        return str(self._server.make_url("/")).rstrip("/")

    def put(self, job_id: str, stage: str, percentage: float = 0.0) -> None:
        """Where the job stands from now on."""
        self.stages[job_id] = (stage, percentage)

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self._server.close()

    def _application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/v1/analysis", self._create)
        app.router.add_get("/api/v1/analysis/{id}/status", self._status)
        app.router.add_get("/api/v1/jobs", self._list)
        return app

    async def _create(self, _: web.Request) -> web.Response:
        self.asked["create"] += 1
        job_id = f"job-{self.asked['create']}"
        self.put(job_id, "Queued")
        return web.json_response({"job_id": job_id, **self._progress(job_id)})

    async def _status(self, request: web.Request) -> web.Response:
        self.asked["status"] += 1
        self.statuses.append(request)
        job_id = request.match_info["id"]
        if job_id not in self.stages:
            return web.json_response({"detail": "no such job"}, status=404)
        document = {"job_id": job_id, "status": self.stages[job_id][0], **self._progress(job_id)}
        code = self.code
        await self.gate.wait()
        return web.json_response(document, status=code)

    async def _list(self, _: web.Request) -> web.Response:
        self.asked["list"] += 1
        return web.json_response({"jobs": []})

    def _progress(self, job_id: str) -> dict[str, Any]:
        stage, percentage = self.stages[job_id]
        return {"progress": {"current_stage": stage, "percentage": percentage}}
