"""Three dialects of the job API, each followed to its end by the job contract in YAML alone.

A whole gateway, in this process, in front of an upstream that speaks the dialect.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.app.gateway import Gateway
from gateway.settings.load import load, load_policies
from tests.support.system import eventually

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
POLICIES: Mapping[str, Any] = {
    "auth": {"enabled": False},
    "rate_limits": {"enabled": False},
    "cache": {"enabled": False},
}


@dataclass
class DialectUpstream:
    """Answers by method and path, as a test sets them."""

    answers: dict[tuple[str, str], Any] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.Response:
        answer = self.answers.get((request.method, request.path))
        if answer is None:
            raise web.HTTPNotFound
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="text/plain")
        return web.json_response(answer)


@dataclass
class Client:
    """A client of the gateway."""

    session: aiohttp.ClientSession
    upstream: DialectUpstream

    async def send(self, method: str, path: str, body: Any = None) -> Any:
        async with self.session.request(method, path, json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json(content_type=None)

    async def events(self, job_id: str) -> list[Any]:
        document = await self.send("GET", f"/api/v1/jobs/{job_id}/events")
        events: list[Any] = document["events"]
        return events

    async def until(self, job_id: str, **data: Any) -> list[Any]:
        """The job's events once the last of them says this."""

        async def said() -> bool:
            last: dict[str, Any] = (await self.events(job_id))[-1]["data"]
            return data.items() <= last.items()

        await eventually(f"{job_id} shows {data}", said)
        return await self.events(job_id)


@asynccontextmanager
async def gateway(folder: Path, jobs: Mapping[str, Any]) -> AsyncIterator[Client]:
    """A gateway whose job contract is `jobs`, and a client of it."""
    upstream = DialectUpstream()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", upstream.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        public, admin = ({"host": "127.0.0.1", "port": 0} for _ in range(2))
        settings = {
            "server": {"public": public, "admin": admin, "drain_timeout": "1s"},
            "upstream": {"url": str(server.make_url("")).rstrip("/")},
            "store": {"sqlite": {"path": str(folder / "jobs.db")}},
            "jobs": {**jobs, "watch": {"poll": {"min": "10ms", "max": "20ms"}}},
        }
        file = folder / "gateway.yaml"
        file.write_text(yaml.safe_dump(settings))
        directory = folder / "policies"
        directory.mkdir()
        for name, policy in POLICIES.items():
            (directory / f"{name}.yaml").write_text(yaml.safe_dump(policy))
        made = Gateway(load(file, {}), load_policies(directory))
        ports = await made.start()
        try:
            base = f"http://127.0.0.1:{ports['public']}"
            async with aiohttp.ClientSession(base) as session:
                yield Client(session, upstream)
        finally:
            await made.stop()


def contract(name: str) -> Mapping[str, Any]:
    document: Mapping[str, Any] = yaml.safe_load((DATA / "contracts" / f"{name}.yaml").read_text())
    return document


def types(events: list[Any]) -> list[str]:
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    return [event["type"].removeprefix("job.") for event in events]


async def test_dialect_of_the_shipped_gateway_yaml(tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "gateway.yaml").read_text())["jobs"]
    samples = DATA / "upstream"
    async with gateway(tmp_path, shipped) as client:
        answers = client.upstream.answers
        answers["POST", "/api/v1/analysis"] = (samples / "create-200.json").read_bytes()
        job_id = "3bc7adc7-dbe4-4021-ad61-9c0ab0b6dc8b"
        status = (samples / "status-queued.json").read_bytes()
        answers["GET", f"/api/v1/analysis/{job_id}/status"] = status
        stream = (samples / "stream-completed.txt").read_bytes()
        answers["GET", f"/api/v1/analysis/{job_id}/stream"] = stream
        created = await client.send("POST", "/api/v1/analysis", {"url": "https://x.example"})
        assert created["job_id"] == job_id
        events = await client.until(job_id, status="completed")
    stages = [event["data"]["stage"] for event in events if event["type"] == "job.stage_changed"]
    assert stages == [
        "Downloading",
        "Generating waveform",
        "Transcribing",
        "Fetching chat",
        "Analyzing",
        "Finding highlights",
    ]
    assert types(events) == ["started", *["stage_changed", "progress"] * 6, "completed"]
    last = events[-1]["data"]
    assert (last["video_id"], last["progress"]) == ("2434635255", 100)
    assert last["results"]["highlights_count"] == 3
    # The upstream counts 7 stages done of 5 in its stream, of 7 in its creation.
    assert all(
        event["data"]["stages_completed"] <= event["data"]["total_stages"] for event in events
    )


async def test_flat_dialect_with_a_bare_number_for_the_progress(tmp_path: Path) -> None:
    def answer(status: str, progress: float, stage: str | None, **fields: Any) -> dict[str, Any]:
        document = {
            "status": status,
            "progress": progress,
            "current_stage": stage,
            "estimated_completion": "2026-01-01T00:00:00Z",
            "error": None,
            "results": {},
        }
        return {**document, **fields}

    async with gateway(tmp_path, contract("flat")) as client:
        answers = client.upstream.answers
        answers["POST", "/api/v1/analyze"] = {"job_id": "a1", "status": "queued"}
        status = ("GET", "/api/v1/status/a1")
        answers[status] = answer("queued", 0, None)
        await client.send("POST", "/api/v1/analyze", {"url": "https://x.example"})
        answers[status] = answer("processing", 45, "transcription")
        await client.until("a1", stage="transcription", progress=45, status="running")
        answers[status] = answer("processing", 80, "transcription")
        await client.until("a1", progress=80)
        answers[status] = answer("completed", 100, "done", results={"clips": 3})
        events = await client.until("a1", status="completed")
        assert set(types(events)) == {"started", "stage_changed", "progress", "completed"}
        assert types(events).count("stage_changed") == 1
        assert events[-1]["data"]["results"] == {"clips": 3}

        answers["POST", "/api/v1/analyze"] = {"job_id": "a2", "status": "queued"}
        failure = answer("failed", 45, "transcription", error="out of memory")
        answers["GET", "/api/v1/status/a2"] = failure
        await client.send("POST", "/api/v1/analyze", {"url": "https://x.example"})
        events = await client.until("a2", status="failed")
        assert types(events) == ["started", "failed"]
        assert events[-1]["data"]["error"]["error_message"] == "out of memory"


async def test_nested_dialect_whose_status_is_the_stage(tmp_path: Path) -> None:
    def answer(status: str, percentage: float, stage: str | None = None) -> dict[str, Any]:
        progress = {"percentage": percentage, "current_stage": stage, "message": "part 2 of 6"}
        return {"status": status, "progress": progress}

    async with gateway(tmp_path, contract("nested")) as client:
        answers = client.upstream.answers
        answers["GET", "/api/v1/analysis"] = {"analyses": []}
        answers["POST", "/api/v1/analysis"] = {"id": "n1", "status": "pending"}
        status = ("GET", "/api/v1/analysis/n1/status")
        answers[status] = answer("pending", 0)
        await client.send("POST", "/api/v1/analysis", {"url": "https://x.example"})
        answers[status] = answer("transcribing", 33.3, "Transcribing")
        await client.until("n1", stage="Transcribing", progress=33.3, status="running")
        answers[status] = answer("analyzing", 60)
        await client.until("n1", stage="analyzing", progress=60)
        answers[status] = answer("finished", 100)
        events = await client.until("n1", status="completed")
        assert types(events)[0] == "started"
        assert types(events).count("stage_changed") == 2
        assert types(events)[-1] == "completed"

        answers["POST", "/api/v1/analysis"] = {"id": "n2", "status": "pending"}
        answers["GET", "/api/v1/analysis/n2/status"] = answer("pending", 0)
        await client.send("POST", "/api/v1/analysis", {"url": "https://x.example"})
        answers["DELETE", "/api/v1/analysis/n2"] = {"message": "cancelled"}
        await client.send("DELETE", "/api/v1/analysis/n2")
        events = await client.until("n2", status="cancelled")
        assert types(events)[-1] == "cancelled"
