"""The published libraries and our example receivers, on what the running gateway sends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import standardwebhooks

from tests.support.receiver import Received, Receiver
from tests.support.system import ROOT, AnalysisApi, GatewayProcess, eventually

VERIFIER = ROOT / "tests" / "node_verifier"
EXAMPLES = ROOT / "examples" / "webhook_receiver"
NODE = shutil.which("node")
OTHER_SECRET = "whsec_" + "QUJD" * 8

pytestmark = pytest.mark.asyncio(loop_scope="module")
with_node = pytest.mark.skipif(NODE is None, reason="Node is not installed (20 or later)")
with_npm = pytest.mark.skipif(
    NODE is None or not (VERIFIER / "node_modules").exists(),
    reason="the npm package standardwebhooks is not installed: 'make install' with Node 20",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("receivers")
    async with AnalysisApi() as api, GatewayProcess(folder, api.url) as running:
        yield running


@dataclass
class Caught:
    """What the running gateway sent to one webhook, before, during and after a rotation."""

    first: str
    second: str
    before: list[Received] = field(default_factory=list)
    during: list[Received] = field(default_factory=list)
    after: list[Received] = field(default_factory=list)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def caught(gateway: GatewayProcess) -> Caught:
    async with Receiver() as receiver:
        webhook = await gateway.register(receiver.url)
        path = f"/api/v1/webhooks/{webhook['id']}"

        async def take(job: bool) -> list[Received]:  # noqa: FBT001
            seen = len(receiver.requests)
            if job:
                await gateway.finish(await gateway.create())
            answer = await gateway.request("POST", f"{path}/test")
            event_id = answer.document["event_id"]
            await receiver.wait_until(lambda: event_id in [each.id for each in receiver.requests])
            return receiver.requests[seen:]

        before = await take(job=True)
        rotated = await gateway.request("POST", f"{path}/rotate", {"overlap_seconds": 3600})
        during = await take(job=True)
        again = await gateway.request("POST", f"{path}/rotate", {"overlap_seconds": 0})
        after = await take(job=False)
        assert again.status == 200
        secrets = [rotated.document["secret"], again.document["secret"]]
        found = Caught(webhook["secret"], secrets[0], before, during, after)
        assert all(each.verify(secrets[1]) for each in after)
        return found


def expected(caught: Caught) -> list[tuple[str, Received, bool]]:
    """Each delivery under each secret, and whether that secret signed it."""
    rows = [(caught.first, each, True) for each in caught.before + caught.during]
    rows += [(caught.second, each, True) for each in caught.during]
    rows += [(caught.second, each, False) for each in caught.before]
    rows += [(caught.first, each, False) for each in caught.after]
    rows += [(OTHER_SECRET, each, False) for each in caught.before + caught.during]
    return rows


async def test_deliveries_are_of_a_whole_job_and_carry_both_signatures_in_the_overlap(
    caught: Caught,
) -> None:
    assert {"job.started", "job.completed", "webhook.test"} <= {
        each.event for each in caught.before
    }
    counts = [
        {len(each.headers["webhook-signature"].split(" ")) for each in group}
        for group in (caught.before, caught.during, caught.after)
    ]
    assert counts == [{1}, {2}, {1}]


async def test_pypi_library_verifies_what_the_secret_signed_and_nothing_else(
    caught: Caught,
) -> None:
    for secret, each, signed in expected(caught):
        verifier = standardwebhooks.Webhook(secret)
        if signed:
            assert verifier.verify(each.body, dict(each.headers)) == each.envelope
        else:
            with pytest.raises(standardwebhooks.WebhookVerificationError):
                verifier.verify(each.body, dict(each.headers))


@with_npm
async def test_npm_library_verifies_what_the_secret_signed_and_nothing_else(
    caught: Caught,
) -> None:
    rows = expected(caught)
    assert await verified_by_node([(secret, each) for secret, each, _ in rows]) == [
        f"ok {each.id}" if signed else "refused No matching signature found"
        for _, each, signed in rows
    ]


@with_npm
async def test_npm_library_refuses_a_changed_body(caught: Caught) -> None:
    each = caught.before[0]
    body = each.body.replace(b'"job.', b'"jab.', 1)
    (said,) = await verified_by_node([(caught.first, each)], body)
    assert said == "refused No matching signature found"


async def verified_by_node(
    deliveries: Sequence[tuple[str, Received]], body: bytes | None = None
) -> list[str]:
    assert NODE is not None
    lines = [
        json.dumps(
            {
                "secret": secret,
                "headers": {name.lower(): value for name, value in each.headers.items()},
                "body": (body or each.body).decode(),
            }
        )
        for secret, each in deliveries
    ]
    process = await asyncio.create_subprocess_exec(
        NODE,
        "verify.mjs",
        cwd=VERIFIER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate("\n".join(lines).encode() + b"\n")
    return said.decode().splitlines()


# --- the examples ---------------------------------------------------------------------------------


@dataclass
class Example:
    """A receiver of the examples as a process; `lines` are what it said of events."""

    command: Sequence[str]
    memory: Path
    secrets: str
    port: int = 0
    lines: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        arguments = ["--port", str(self.port), "--memory", str(self.memory)]
        process = await asyncio.create_subprocess_exec(
            *self.command,
            *arguments,
            env={**os.environ, "WEBHOOK_SECRET": self.secrets},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(20):
                first = (await process.stdout.readline()).decode()
            assert first.startswith("listening on "), first
            self.port = int(first.rpartition(":")[2])
            reading = asyncio.create_task(self._read(process.stdout))
            yield
        finally:
            process.kill()
            await process.wait()
        await reading

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self.lines.append(line.decode().strip())


@pytest.fixture(params=["python", pytest.param("node", marks=with_node)])
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    commands: Mapping[str, list[str]] = {
        "python": [sys.executable, str(EXAMPLES / "receiver.py")],
        "node": [NODE or "node", str(EXAMPLES / "receiver.mjs")],
    }
    return Example(commands[request.param], tmp_path / "seen", "")


async def post(url: str, headers: Mapping[str, str], body: bytes) -> int:
    sent = {name: value for name, value in headers.items() if name.lower().startswith("webhook-")}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=sent) as response,
    ):
        return response.status


async def test_example_handles_each_event_of_a_job_once_and_across_a_rotation(
    gateway: GatewayProcess, example: Example
) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    example.secrets = f"{OTHER_SECRET} {secret}"
    async with example.running():
        webhook = await gateway.register(example.url, secret=secret)
        job_id = await gateway.create()
        timeline = await gateway.finish(job_id)
        await gateway.request(
            "POST", f"/api/v1/webhooks/{webhook['id']}/rotate", {"secret": OTHER_SECRET}
        )
        sent = await gateway.request("POST", f"/api/v1/webhooks/{webhook['id']}/test")
        log = await delivered(gateway, webhook["id"], sent.document["delivery_id"])
        again = await gateway.request(
            "POST", f"/api/v1/webhooks/{webhook['id']}/deliveries/{log[0]['id']}/redeliver"
        )
        await delivered(gateway, webhook["id"], again.document["delivery_id"])
    await gateway.request("DELETE", f"/api/v1/webhooks/{webhook['id']}")
    kinds = Counter(line.split()[0] for line in example.lines)
    assert kinds["job.completed"] == kinds["job.started"] == kinds["webhook.test"] == 1
    assert all(count == 1 for count in Counter(example.lines).values())
    assert len([line for line in example.lines if job_id in line]) <= len(timeline)


async def delivered(gateway: GatewayProcess, webhook_id: str, delivery_id: str) -> list[Any]:
    async def is_delivered() -> bool:
        found = await gateway.deliveries(webhook_id, "&status=succeeded")
        return delivery_id in [each["id"] for each in found]

    await eventually("the delivery succeeds", is_delivered)
    return await gateway.deliveries(webhook_id)


async def test_example_refuses_what_is_not_signed_and_remembers_over_a_restart(
    caught: Caught, example: Example
) -> None:
    example.secrets = caught.first
    each = caught.before[0]
    late = {**each.headers, "webhook-timestamp": "1614265330"}
    bare = {"webhook-id": each.id}
    async with example.running():
        statuses = [
            await post(example.url, each.headers, each.body),
            await post(example.url, each.headers, each.body + b" "),
            await post(example.url, late, each.body),
            await post(example.url, bare, each.body),
            await post(example.url, each.headers, each.body),
        ]
    async with example.running():
        statuses.append(await post(example.url, each.headers, each.body))
    assert statuses == [204, 401, 401, 401, 204, 204]
    assert len(example.lines) == 1


async def test_example_without_a_secret_does_not_start(example: Example) -> None:
    process = await asyncio.create_subprocess_exec(
        *example.command,
        "--memory",
        str(example.memory),
        env={**os.environ, "WEBHOOK_SECRET": ""},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert process.returncode != 0
    assert b"WEBHOOK_SECRET is not set" in said
