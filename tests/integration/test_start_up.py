"""What a start imports: nothing that the settings do not ask for."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.system import GatewayProcess

# Each is a noticeable part of a start, or of the memory at rest.
HEAVY = (
    "redis",
    "opentelemetry",
    "jsonschema",
    "gateway.app.replica",
    "gateway.store.redis",
    "gateway.demo",
    "gateway.migrate",
)
_IMPORTED = re.compile(r"^import time:.*\| +(\S+)$", re.MULTILINE)
_NEVER = "http://127.0.0.1:9"  # discard: nobody listens there


async def imported(folder: Path, **settings: object) -> set[str]:
    """Every module that `gateway serve` has loaded once it listens."""
    environment = {"PYTHONPROFILEIMPORTTIME": "1", "REDIS_URL": "redis://127.0.0.1:9"}
    async with GatewayProcess(folder, _NEVER, environment=environment, **settings) as gateway:
        assert await gateway.terminate() == 0
        return set(_IMPORTED.findall(gateway.log))


def of(modules: set[str], name: str) -> set[str]:
    return {each for each in modules if each == name or each.startswith(f"{name}.")}


async def test_a_default_start_imports_nothing_heavy_that_it_has_no_use_for(
    tmp_path: Path,
) -> None:
    modules = await imported(tmp_path)

    assert "gateway.app.gateway" in modules
    assert {name: found for name in HEAVY if (found := of(modules, name))} == {}


async def test_redis_is_imported_where_the_settings_have_one(tmp_path: Path) -> None:
    modules = await imported(tmp_path, redis={"url": "${REDIS_URL}"})  # away: no matter

    assert of(modules, "gateway.store.redis")
