"""docs/jobs.md: the samples of its client guide work as they stand."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from tests.docs.markdown import ROOT, blocks
from tests.support.system import KEY, GatewayProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = (ROOT / "docs" / "jobs.md").read_text()
NODE = shutil.which("node")
(PYTHON,) = (text for block in blocks(PAGE, "python") if "ticket" in (text := block.text))
(JAVASCRIPT,) = (block.text for block in blocks(PAGE, "javascript"))
DRIVER = """
    const seen = [];
    const { GATEWAY, TICKET } = process.env;
    follow(GATEWAY, async () => JSON.parse(TICKET), (name, data) => {
      seen.push([name, data.progress.percentage]);
      if (name !== "progress") console.log(JSON.stringify(seen));
    });
"""


def ticket(gateway: GatewayProcess, job_id: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(PYTHON, "docs/jobs.md", "exec"), names)  # noqa: S102 - the sample under test
    answer: dict[str, Any] = names["stream_ticket"](gateway.public, KEY, job_id)
    return answer


def follow(gateway: GatewayProcess, answer: dict[str, Any]) -> list[Any]:
    """What the page's code shows of a job, in Node's `EventSource`."""
    assert NODE is not None
    done = subprocess.run(
        ["node", "--experimental-eventsource", "--input-type=module", "-"],
        input=JAVASCRIPT + DRIVER,
        env={**os.environ, "GATEWAY": gateway.public, "TICKET": json.dumps(answer)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    seen: list[Any] = json.loads(done.stdout)
    return seen


@pytest.mark.skipif(NODE is None, reason="needs node, for its EventSource")
async def test_a_page_follows_a_job_with_a_ticket(gateway: GatewayProcess) -> None:
    job_id = await gateway.create()
    answer = await asyncio.to_thread(ticket, gateway, job_id)
    seen = await asyncio.to_thread(follow, gateway, answer)

    assert [name for name, _ in seen][-1] == "completed"
    assert {name for name, _ in seen[:-1]} <= {"progress"}
    assert [percentage for _, percentage in seen] == sorted(percentage for _, percentage in seen)
    assert seen[-1][1] == 100
