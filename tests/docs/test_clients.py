"""docs/clients.md: its client follows a job to its end, asking for nothing it need not."""

from __future__ import annotations

import asyncio
import urllib.error
from typing import Any

import pytest

from tests.docs.markdown import ROOT, blocks
from tests.support.system import KEY, OTHER_KEY, GatewayProcess

PAGE = (ROOT / "docs" / "clients.md").read_text()
(PYTHON,) = (block.text for block in blocks(PAGE, "python"))


def sample(pauses: list[float]) -> Any:
    """`wait_for`; it does not wait, and says how long it would have."""
    names: dict[str, Any] = {}
    exec(compile(PYTHON, "docs/clients.md", "exec"), names)  # noqa: S102 - the sample under test
    real = names["time"].sleep

    class Time:
        @staticmethod
        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            real(0.02)

    names["time"] = Time
    return names["wait_for"]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_client_follows_a_job_to_its_end_and_most_polls_are_304(
    gateway: GatewayProcess,
) -> None:
    job_id = await gateway.create()
    pauses: list[float] = []

    job = await asyncio.to_thread(sample(pauses), gateway.public, job_id, KEY)
    metrics = await gateway.metrics()

    assert job["status"] == "Completed"
    assert set(pauses) <= {2.0}
    unchanged = (
        "gateway_http_request_duration_seconds_count{method=GET,route=job-status,status=304}"
    )
    assert metrics[unchanged] >= 1


@pytest.mark.asyncio(loop_scope="module")
async def test_the_client_does_not_insist_where_that_is_no_use(gateway: GatewayProcess) -> None:
    pauses: list[float] = []

    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(sample(pauses), gateway.public, "no-such-job", OTHER_KEY)

    assert caught.value.code == 404
    assert pauses == []
