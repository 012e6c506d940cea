"""Health by the settings: which components there are, and what the whole makes of each."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from aiohttp.test_utils import unused_port

from gateway.settings.health import ComponentName
from tests.support.inside import GatewayInside


async def overall(folder: Path, critical: list[str]) -> tuple[int, str, set[str]]:
    """Status code, word and components, while the upstream is away."""
    away = f"http://127.0.0.1:{unused_port()}"
    async with GatewayInside(folder, away, health={"critical": critical}) as gateway:
        await gateway.gateway.health.check()
        answer = await gateway.ask_admin("/health")
        assert answer.document["components"]["upstream"]["status"] == "unhealthy"
        metrics = await gateway.metrics()
        assert metrics["gateway_component_unwell{component=upstream}"] == 2
        assert metrics["gateway_component_unwell{component=sqlite}"] == 0
        return answer.status, answer.document["status"], set(answer.document["components"])


async def test_settings_say_whether_a_missing_component_is_degraded_or_unhealthy(
    tmp_path: Path,
) -> None:
    mild = await overall(tmp_path, [])
    strict = await overall(tmp_path, ["upstream"])

    assert mild[:2] == (200, "degraded")
    assert strict[:2] == (503, "unhealthy")
    assert strict[2] == set(get_args(ComponentName))
