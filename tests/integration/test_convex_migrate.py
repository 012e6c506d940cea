"""`gateway migrate` as an operator runs it: a process against the real functions of `convex/`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gateway.migrate import contract
from tests.support.convex import ConvexServer, require_server
from tests.support.system import ROOT, clean_environment

STEP = "migrations/control:step"
FIRST = "v1_result_urls"
NAMES = (FIRST, "v2_error_counts", "v3_video_status")
DOCUMENTS = 10_000
DEADLINE_SECONDS = 60


def shipped_document() -> dict[str, Any]:
    path = Path(contract.__file__).with_name("contract.json")
    document: dict[str, Any] = orjson.loads(path.read_bytes())
    return document


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    output: str
    errors: str


@dataclass(frozen=True, slots=True)
class Operator:
    """Someone at a shell, before one deployment."""

    server: ConvexServer
    folder: Path

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        settings = {
            "GATEWAY__CONVEX__URL": self.server.url,
            "GATEWAY__CONVEX__DEPLOY_KEY": self.server.deploy_key,
            "GATEWAY__STORE__SQLITE__PATH": str(self.folder / "gateway.db"),
        }
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gateway", "migrate", *arguments, "--config", str(ROOT / "gateway.yaml")),
            cwd=self.folder,
            env=clean_environment() | settings | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, **environment: str) -> Ended:
        process = await self.start(*arguments, **environment)
        async with asyncio.timeout(DEADLINE_SECONDS):
            output, errors = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, output.decode(), errors.decode())

    async def killed_after(self, batches: int, *arguments: str) -> None:
        """Run a command that dies by SIGKILL once this many batches are committed."""
        before = await self.committed()
        process = await self.start(*arguments)
        await self.server.wait_until(
            lambda stats: stats["paths"].get(STEP, {}).get("succeeded", 0) >= before + batches
        )
        os.kill(process.pid, signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL

    async def committed(self) -> int:
        seen: int = (await self.server.stats())["paths"].get(STEP, {}).get("succeeded", 0)
        return seen

    async def load(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self.server.url}/__load", json={"table": table, "rows": rows}
            ) as response,
        ):
            assert response.status == 200, await response.text()

    async def rows(self, table: str) -> list[dict[str, Any]]:
        rows = await self.server.dump(table)
        return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]


@pytest.fixture(scope="module")
def convex_process() -> Iterator[ConvexServer]:
    require_server()
    with ConvexServer() as server:
        yield server


@pytest.fixture
async def operator(convex_process: ConvexServer, tmp_path: Path) -> Operator:
    await convex_process.reset()
    return Operator(convex_process, tmp_path)


async def test_shipped_contract_is_that_of_convex(operator: Operator) -> None:
    """`npm run contract` in tests/convex_server writes it."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{operator.server.url}/api/query",
            json={"path": "migrations/inspect:contract", "args": {}, "format": "json"},
            headers={"Authorization": f"Convex {operator.server.deploy_key}"},
        ) as response,
    ):
        answer = await response.json()
    assert contract.parse_deployed(answer["value"]) == contract.shipped()


async def test_ten_thousand_documents_go_up_and_down_through_a_crash_in_each(
    operator: Operator,
) -> None:
    videos = [
        {"twitchId": f"v{n}", "chatUrl": f"c{n}"} | ({} if n % 2 else {"chat_url": "newer"})
        for n in range(DOCUMENTS)
    ]
    await operator.load("videos", videos)
    arguments = ("convex", "--batch-size", "400")

    await operator.killed_after(5, "up", *arguments, "--to", FIRST)
    standing = await operator.run("status", "convex")
    assert "running on its way up" in standing.output
    ended = await operator.run("up", *arguments, "--to", FIRST)
    assert ended.code == 0, ended.errors
    assert "10,000 of 10,000 documents, 5,000 changed" in ended.errors
    migrated = await operator.rows("videos")
    assert [each["chat_url"] for each in migrated[:4]] == ["newer", "c1", "newer", "c3"]
    assert all("chat_url" in each for each in migrated)
    # No document was migrated twice, although the run was.
    assert len(await operator.rows("migrationBackups")) == DOCUMENTS // 2

    await operator.killed_after(4, "down", *arguments)
    assert "running on its way down" in (await operator.run("status", "convex")).output
    ended = await operator.run("down", *arguments)
    assert ended.code == 0, ended.errors
    assert "5,000 of 5,000 documents, 5,000 restored" in ended.errors
    assert await operator.rows("videos") == videos
    assert await operator.rows("migrationBackups") == []


async def test_all_migrations_go_up_and_back_by_name(operator: Operator) -> None:
    videos = [{"twitchId": "v1", "status": "Analyzing", "audiowaveUrl": "a"}]
    analytics = [
        {"jobId": "j1", "incarnation": "01K", "sequence": 1, "status": "failed", "stages": []}
    ]
    await operator.load("videos", videos)
    await operator.load("jobAnalytics", analytics)

    assert (await operator.run("up")).code == 0
    status = await operator.run("status")
    assert status.output.count("applied: 1 documents, 1 changed; can be rolled back") == 3
    assert f"SQLite file {operator.folder}/gateway.db: schema 0 of" in status.output
    (video,), (row,) = await operator.rows("videos"), await operator.rows("jobAnalytics")
    assert (video["status"], video["currentStage"]) == ("running", "Analyzing")
    assert (video["waveform_url"], row["errorCount"]) == ("a", 1.0)
    assert "nothing to apply" in (await operator.run("up", "convex")).output

    ended = await operator.run("down", "convex", "--to", FIRST)
    assert ended.code == 0, ended.errors
    assert (await operator.rows("videos"), await operator.rows("jobAnalytics")) == (
        videos,
        analytics,
    )
    assert "nothing to roll back" in (await operator.run("down", "convex")).output


async def test_dry_run_counts_every_batch_and_changes_nothing(operator: Operator) -> None:
    videos = [{"twitchId": f"v{n}", "chatUrl": "c"} for n in range(25)]
    await operator.load("videos", videos)
    ended = await operator.run("up", "convex", "--dry-run", "--batch-size", "10")
    assert ended.code == 0, ended.errors
    assert f"{FIRST} up (dry run)" in ended.errors
    assert "25 of 25 documents, 25 changed" in ended.errors
    assert await operator.rows("videos") == videos
    assert "not applied" in (await operator.run("status", "convex")).output


@pytest.mark.parametrize("fault", ["lost_reply", "503", "drop"])
async def test_batch_whose_answer_is_lost_is_neither_lost_nor_done_twice(
    operator: Operator, fault: str
) -> None:
    await operator.load("videos", [{"twitchId": f"v{n}", "chatUrl": "c"} for n in range(30)])
    await operator.server.fault(fault, path=STEP, count=1)
    ended = await operator.run("up", "convex", "--to", FIRST, "--batch-size", "10")
    assert ended.code == 0, ended.errors
    assert "30 of 30 documents, 30 changed" in ended.errors
    assert len(await operator.rows("migrationBackups")) == 30


async def test_document_that_cannot_be_migrated_is_named_with_what_to_do(
    operator: Operator,
) -> None:
    big = {"twitchId": "big", "title": "x" * (2**20 - 1500), "chatUrl": "y" * 1000}
    await operator.load("videos", [{"twitchId": "v", "chatUrl": "c"}, big])
    ended = await operator.run("up", "convex", "--batch-size", "1")
    (_, row) = await operator.server.dump("videos")
    assert ended.code == 1
    assert f"v1_result_urls stopped at a document, and undid its batch: videos {row['_id']}: " in (
        ended.errors
    )
    assert "Mend the document and run it again" in ended.errors
    assert "failed on its way up: 1 documents" in (await operator.run("status", "convex")).output
    assert (await operator.run("down", "convex")).code == 0
    assert "chat_url" not in (await operator.rows("videos"))[0]


async def test_confirmed_migration_forgets_what_it_overwrote(operator: Operator) -> None:
    await operator.load("videos", [{"twitchId": f"v{n}", "chatUrl": "c"} for n in range(5)])
    await operator.run("up", "convex")
    ended = await operator.run("confirm", FIRST, "--batch-size", "2")
    assert (ended.code, ended.errors) == (0, "")
    assert "is confirmed; what it overwrote in 5 documents is gone" in ended.output
    refused = await operator.run("down", "convex", "--to", FIRST)
    assert refused.code == 1
    assert "CONFIRMED: v1_result_urls was confirmed" in refused.errors


async def test_check_of_what_is_deployed_finds_no_obstacle(operator: Operator) -> None:
    ended = await operator.run("check")
    assert (ended.code, ended.output) == (0, "No obstacles.\n")


async def test_check_refuses_a_narrowing_change_and_names_it(operator: Operator) -> None:
    path = operator.folder / "schema.json"
    changed = shipped_document()
    videos = changed["schema"]["tables"][0]
    fields = videos["documentType"]["value"]
    fields["status"]["optional"] = False
    fields["retryCount"]["fieldType"] = {"type": "string"}
    del fields["title"]
    videos["indexes"] = videos["indexes"][1:]
    path.write_bytes(orjson.dumps(changed))

    ended = await operator.run("check", "--schema", str(path))
    assert ended.code == 1
    assert ended.output.splitlines() == [
        "breaking  videos: takes no title",
        "breaking  videos: requires status",
        "breaking  videos: takes retryCount as string, not as number",
        "breaking  videos: has no index by_twitchId: an older web app's query by it fails",
        "4 obstacles.",
    ]


async def test_check_says_when_the_deployment_lags_behind(operator: Operator) -> None:
    path = operator.folder / "deployed.json"
    older = shipped_document()
    (track,) = [each for each in older["functions"] if each["path"] == "jobs:trackAnalytics"]
    del track["args"]["value"]["errorCount"]
    path.write_bytes(orjson.dumps(older))

    ended = await operator.run("check", "--deployed", str(path))
    assert ended.code == 1
    assert "behind    jobs:trackAnalytics: takes no errorCount, as deployed" in ended.output


async def test_validate_names_the_documents_that_a_schema_would_refuse(operator: Operator) -> None:
    await operator.load("videos", [{"twitchId": "v1", "status": "x"}, {"twitchId": "v2"}])
    assert (await operator.run("validate")).code == 0
    path = operator.folder / "schema.json"
    stricter = shipped_document()
    stricter["schema"]["tables"][0]["documentType"]["value"]["status"]["optional"] = False
    path.write_bytes(orjson.dumps(stricter))

    ended = await operator.run("validate", "--schema", str(path))
    (_, second) = await operator.server.dump("videos")
    assert ended.code == 1
    assert f"videos {second['_id']}: status is missing" in ended.output
    assert "videos: 2 documents, 1 that the schema would refuse" in ended.output


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("status", "convex"), {"GATEWAY__CONVEX__URL": ""}, "convex.url"),
        (
            ("status",),
            {"GATEWAY__CONVEX__DEPLOY_KEY": "test:key|wrong"},
            "was invalid for this instance; set convex.deploy_key (GATEWAY__CONVEX__DEPLOY_KEY)",
        ),
        (("up", "convex", "--to", "v9"), {}, "no migration 'v9'; known: v1_result_urls, v2_error"),
        (("down", "store", "--dry-run"), {}, "--dry-run is of Convex's migrations"),
        (("down", "store"), {}, "is not there"),
        (("check", "--schema", "none.json"), {}, "none.json: No such file"),
    ],
)
async def test_what_cannot_be_done_is_said_in_one_line(
    operator: Operator, arguments: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    ended = await operator.run(*arguments, **environment)
    assert ended.code == 1
    assert said in ended.errors
    assert len(ended.errors.splitlines()) == 1
    assert "wrong" not in ended.errors


async def test_deployment_without_the_migrations_says_to_deploy(operator: Operator) -> None:
    missing = "Could not find public function for 'migrations/control:status'."
    await operator.server.fault("error", message=missing)
    ended = await operator.run("status", "convex")
    assert ended.code == 1
    assert "the deployment has no migrations/control:status: deploy convex/ first" in ended.errors


async def test_store_goes_up_and_down_by_the_same_command(operator: Operator) -> None:
    (operator.folder / "gateway.db").touch()
    up = await operator.run("up", "store")
    assert up.code == 0, up.errors
    assert "schema 0 to" in up.output
    down = await operator.run("down", "store")
    assert down.code == 0, down.errors
    assert f"as it was: {operator.folder}/gateway.db.schema-" in down.output
