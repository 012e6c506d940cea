"""The whole product as processes: the stand-in upstream and the gateway, killable with -9."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson
import yaml
from multidict import CIMultiDictProxy
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.credential import format_key, hash_key

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0
CONDITION_SECONDS = 30.0
POLL_SECONDS = 0.02
KEY = format_key(b"acceptance-tests-only-key")
OTHER_KEY = format_key(b"another-owner's-test-key!")
READ_KEY = format_key(b"a-key-that-may-only-read!")  # of the first key's owner
SECRET_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VIDEO = "https://www.twitch.tv/videos/2434635255"
FAILING_VIDEO = "https://www.twitch.tv/videos/2434635213"
TERMINAL = frozenset({"job.completed", "job.failed", "job.cancelled"})
# What a developer's shell may hold, and no test must depend on.
_FOREIGN = ("GATEWAY", "CONVEX_", "WEBHOOK_")
_APART = ("policies", "environment")


async def eventually(
    what: str, condition: Callable[[], Awaitable[object]], seconds: float = CONDITION_SECONDS
) -> None:
    """Return once the condition holds; fail, naming it, when it does not within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            # What is waited for happens in another process: there is nothing here to await.
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of a gateway."""
    return {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}


class AnalysisApi:
    """The stand-in upstream as a process; its port survives a restart, its jobs do not."""

    def __init__(self, *, speed: float = 20.0, create_seconds: float = 0.02) -> None:
        self._arguments = ["--speed", str(speed), "--create-seconds", str(create_seconds)]
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "examples.analysis_api",
            "--port",
            str(self.port),
            *self._arguments,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = (await self._process.stdout.readline()).decode()
        assert line.startswith("listening on "), line
        self.port = int(line.rpartition(":")[2])

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(START_SECONDS):
            await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode

    async def fault(self, mode: str | None, **details: Any) -> None:
        """As `POST /__fault` of the stand-in takes it."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/__fault", json={"mode": mode, **details}) as response,
        ):
            assert response.status == 200, await response.text()

    async def stats(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/__stats") as response,
        ):
            stats: dict[str, Any] = await response.json()
            return stats

    async def asked(self) -> dict[str, int]:
        """How often each route was asked; health is left out, for that is asked all the time."""
        requests: dict[str, int] = (await self.stats())["requests"]
        return {route: count for route, count in requests.items() if route != "health"}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Answer:
    """A whole answer of the gateway."""

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def document(self) -> Any:
        return orjson.loads(self.body)


class GatewayProcess:
    """`gateway serve` on the shipped settings, test ones over them; restarts keep its store.

    `overrides` are settings, and two names apart: `policies` (by file, then its content) and
    `environment` (variables).
    """

    def __init__(self, folder: Path, upstream: str, /, **overrides: Any) -> None:
        self.folder = folder
        self._upstream = upstream
        self._overrides = overrides
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self.public = ""
        self.admin = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")

    async def start(self) -> None:
        """Start; the store in `folder` is taken up again."""
        config = self._write_files()
        ports = self.folder / "ports.json"
        ports.unlink(missing_ok=True)
        if self._session is None:
            self._session = aiohttp.ClientSession()
        with (self.folder / "gateway.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway",
                "serve",
                "--config",
                str(config),
                "--port-file",
                str(ports),
                cwd=ROOT,
                env={
                    **clean_environment(),
                    "WEBHOOK_SECRET_KEY": SECRET_KEY,
                    **self._overrides.get("environment", {}),
                },
                stdout=log,
                stderr=log,
            )

        async def is_up() -> bool:
            assert self._process is not None
            assert self._process.returncode is None, self.log[-3000:]
            return ports.exists()

        await eventually("the gateway listens", is_up, START_SECONDS)
        listening = orjson.loads(ports.read_bytes())
        self.public = f"http://127.0.0.1:{listening['public']}"
        self.admin = f"http://127.0.0.1:{listening['admin']}"

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, SIGSTOP and SIGCONT among them."""
        assert self._process is not None
        self._process.send_signal(number)

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(START_SECONDS):
            return await self._process.wait()

    async def request_drain(self) -> None:
        """As a preStop hook does."""
        assert self._session is not None
        async with self._session.post(f"{self.admin}/drain") as response:
            assert response.status == 202

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        key: str | None = KEY,
        headers: Mapping[str, str] | None = None,
        data: bytes | io.BytesIO | None = None,
    ) -> Answer:
        """One request through the public listener."""
        assert self._session is not None
        sent = dict(headers or {})
        if key is not None:
            sent["X-API-Key"] = key
        if document is not None:
            data = orjson.dumps(document)
            sent.setdefault("Content-Type", "application/json")
        async with self._session.request(
            method, self.public + path, data=data, headers=sent, allow_redirects=False
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def health(self) -> dict[str, Any]:
        document: dict[str, Any] = (await self.ask_admin("/health")).document
        return document

    async def metrics(self) -> dict[str, float]:
        """Every sample's value, summed over its labels, and by `name{label="value"}`."""
        text = (await self.ask_admin("/metrics")).body.decode()
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
                for name in {sample.name, f"{sample.name}{{{labels}}}"}:
                    values[name] = values.get(name, 0.0) + sample.value
        return values

    async def create(self, url: str = VIDEO, **fields: Any) -> str:
        """Create a job; its id."""
        answer = await self.request("POST", "/api/v1/analysis", {"url": url, **fields})
        assert answer.status == 200, answer.body
        job_id: str = answer.document["job_id"]
        return job_id

    async def register(self, url: str, events: list[str] | None = None, **fields: Any) -> Any:
        """Register a webhook; the resource, its secret included."""
        body = {"url": url, "events": events or ["job.*"], **fields}
        answer = await self.request("POST", "/api/v1/webhooks", body)
        assert answer.status == 201, answer.body
        return answer.document

    async def status(self, job_id: str) -> Any:
        answer = await self.request("GET", f"/api/v1/analysis/{job_id}/status")
        assert answer.status == 200, answer.body
        return answer.document

    async def timeline(self, job_id: str) -> list[Any]:
        """The events the gateway recorded of a job."""
        answer = await self.request("GET", f"/api/v1/jobs/{job_id}/events")
        if answer.status == 404:
            return []
        assert answer.status == 200, answer.body
        events: list[Any] = answer.document["events"]
        return events

    async def ended(self, job_id: str) -> bool:
        """True once the job's timeline has its terminal event; a store that is away has not yet."""
        answer = await self.request("GET", f"/api/v1/jobs/{job_id}/events")
        if answer.status in (404, 503):
            return False
        assert answer.status == 200, answer.body
        return any(event["type"] in TERMINAL for event in answer.document["events"])

    async def finish(self, job_id: str) -> list[Any]:
        """The job's whole timeline, once it has ended; fails if it does not."""
        await eventually(f"job {job_id} ends", lambda: self.ended(job_id))
        return await self.timeline(job_id)

    async def deliveries(self, webhook_id: str, query: str = "") -> list[Any]:
        """A webhook's whole delivery log, page by page."""
        found: list[Any] = []
        cursor = ""
        while True:
            path = f"/api/v1/webhooks/{webhook_id}/logs?limit=100{query}{cursor}"
            answer = await self.request("GET", path)
            assert answer.status == 200, answer.body
            found += answer.document["deliveries"]
            if answer.document["next_cursor"] is None:
                return found
            cursor = f"&cursor={answer.document['next_cursor']}"

    async def remove_webhooks(self) -> None:
        """Delete every webhook of the test's two owners."""
        for key in (KEY, OTHER_KEY):
            answer = await self.request("GET", "/api/v1/webhooks?limit=100", key=key)
            for webhook in answer.document["webhooks"]:
                await self.request("DELETE", f"/api/v1/webhooks/{webhook['id']}", key=key)

    async def stream(self, job_id: str) -> list[Any]:
        """A job's server-sent events through the gateway, from the first to the stream's end."""
        assert self._session is not None
        url = f"{self.public}/api/v1/analysis/{job_id}/stream"
        async with self._session.get(url, headers={"X-API-Key": KEY}) as response:
            assert response.status == 200
            text = (await response.read()).decode()
        lines = [line for line in text.splitlines() if line.startswith("data: ")]
        return [orjson.loads(line.removeprefix("data: ")) for line in lines]

    async def speak(self, data: bytes) -> bytes:
        """What the public listener answers to these bytes, whatever they are."""
        _, _, port = self.public.rpartition(":")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        try:
            writer.write(data)
            async with asyncio.timeout(CONDITION_SECONDS):
                return await reader.read()
        finally:
            writer.close()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ask_admin(self, path: str, *, accept: str = "*/*") -> Answer:
        """One GET to the admin listener."""
        assert self._session is not None
        async with self._session.get(self.admin + path, headers={"Accept": accept}) as response:
            return Answer(response.status, response.headers, await response.read())

    def _write_files(self) -> Path:
        """The shipped gateway.yaml with what tests need over it, and policies with two keys."""
        settings = yaml.safe_load((ROOT / "gateway.yaml").read_text())
        loopback = {"host": "127.0.0.1", "port": 0}
        _merge(
            settings,
            {
                "server": {
                    "public": loopback,
                    "admin": loopback,
                    "drain_timeout": "2s",
                    "drain_delay": "0s",
                },
                "upstream": {"url": self._upstream},
                "store": {"sqlite": {"path": str(self.folder / "gateway.db")}},
                "jobs": {
                    "watch": {"poll": {"min": "50ms", "max": "500ms"}, "lost_after": "300ms"},
                    "admission": {"max_concurrent": 1000},
                },
                "webhooks": {
                    "max_retries": 3,
                    "retry_delays": ["100ms", "200ms", "400ms"],
                    "addresses": {
                        "schemes": ["https", "http"],
                        "any_port": True,
                        "allow": ["127.0.0.0/8"],
                    },
                },
                "health": {"interval": "200ms"},
            },
        )
        policies = dict(self._overrides.get("policies", {}))
        _merge(settings, {k: v for k, v in self._overrides.items() if k not in _APART})
        folder = self.folder / "policies"
        folder.mkdir(exist_ok=True)
        for file in (ROOT / "policies").glob("*.yaml"):
            document = yaml.safe_load(file.read_text())
            if file.name == "validation.yaml":
                document["openapi"]["source"] = "none"  # nothing but tests asks the upstream
            if file.name == "auth.yaml":
                document["entries"] = [
                    _entry("test", "test", KEY),
                    _entry("other", "other", OTHER_KEY),
                    _entry("reader", "test", READ_KEY, scopes=["jobs:read"]),
                ]
            if file.name == "rate_limits.yaml":
                document["limits"] = {}
            _merge(document, policies.get(file.stem, {}))
            (folder / file.name).write_text(yaml.safe_dump(document))
        config = self.folder / "gateway.yaml"
        config.write_text(yaml.safe_dump(settings))
        return config


def _entry(
    name: str, owner: str, key: str, scopes: Sequence[str] = ("jobs:read", "jobs:write", "webhooks")
) -> dict[str, Any]:
    return {"id": name, "owner": owner, "scopes": list(scopes), "hash": hash_key(key)}


def _merge(below: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, Mapping) and isinstance(below.get(name), dict):
            _merge(below[name], value)
        else:
            below[name] = value
