"""The OpenAPI documents, held against the running gateway by schemathesis."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from gateway.core.credential import format_key, hash_key
from tests.support.receiver import Receiver
from tests.support.system import KEY, AnalysisApi, GatewayProcess

ADMIN = format_key(b"the-operator's-key-for-all")
ENTRIES = [
    {"id": "root", "owner": "ops", "scopes": ["admin"], "hash": hash_key(ADMIN)},
    {"id": "test", "owner": "test", "hash": hash_key(KEY), "scopes": ["webhooks", "jobs:read"]},
]
EXAMPLES, SECONDS = 8, 50
# What a filter, a secret or a tier is no JSON Schema says: what fits it may still be refused.
EXCLUDED = "positive_data_acceptance"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("openapi")
    async with (
        AnalysisApi() as api,
        GatewayProcess(
            folder,
            api.url,
            policies={"auth": {"entries": ENTRIES}},
            webhooks={"max_per_owner": 100_000},
        ) as running,
    ):
        yield running


async def conforms(document: Any, url: str, key: str, folder: Path) -> None:
    """Fail with what schemathesis found unless the API at `url` is as the document says."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    arguments = ["run", str(file), "--url", url, "--header", f"X-API-Key: {key}"]
    arguments += ["--max-examples", str(EXAMPLES), "--seed", "1", "--no-color"]
    arguments += ["--exclude-checks", EXCLUDED, "--generation-database", "none"]
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *arguments,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SECONDS):
            said = (await process.stdout.read()).decode()
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
    assert code == 0, said[-6000:]


async def test_public_api_is_as_its_document_says(gateway: GatewayProcess, tmp_path: Path) -> None:
    answer = await gateway.request("GET", "/api/v1/webhooks/openapi.json")
    assert answer.status == 200
    document = answer.document
    async with Receiver() as receiver:
        # Deliveries stay on this machine, whatever else is generated.
        for name in ("WebhookCreation", "WebhookReplacement", "WebhookChange"):
            properties = document["components"]["schemas"][name]["properties"]
            properties["url"] = {"type": "string", "enum": [receiver.url]}
        await conforms(document, gateway.public, KEY, tmp_path)
    assert "unhandled_error" not in gateway.log


async def test_admin_api_is_as_its_document_says(gateway: GatewayProcess, tmp_path: Path) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.admin}/openapi.json", headers={"X-API-Key": ADMIN}) as response,
    ):
        assert response.status == 200
        document = await response.json()
    await conforms(document, gateway.admin, ADMIN, tmp_path)
