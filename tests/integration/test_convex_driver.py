"""The driver of Convex's migrations, in process: what it asks, and what it makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from gateway.core.error import SettingsError
from gateway.delivery.convex import ConvexClient, ConvexFunctionError, ConvexUnavailable
from gateway.migrate.contract import shipped
from gateway.migrate.convex import (
    RETRY_SECONDS,
    ConvexMigrations,
    Invalid,
    Migration,
    MigrationFailed,
    Progress,
)
from gateway.settings.delivery import Convex
from tests.support.convex import ConvexServer, require_server

FIRST = "v1_result_urls"
STEP, STATUS = "migrations/control:step", "migrations/control:status"


@pytest.fixture(scope="module")
def convex_process() -> Iterator[ConvexServer]:
    require_server()
    with ConvexServer() as server:
        yield server


@dataclass
class Driver:
    """Migrations of one deployment, whose waits take no time and are written down."""

    server: ConvexServer
    client: ConvexClient
    waited: list[float] = field(default_factory=list)
    seen: list[Progress] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.migrations = ConvexMigrations(self.client, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)

    async def first(self) -> Migration:
        return (await self.migrations.status())[0]

    async def run(self, direction: Any, **given: Any) -> Progress:
        first = await self.first()
        return await self.migrations.run(
            first, direction, self.seen.append, **({"batch_size": 2} | given)
        )

    async def videos(self, count: int) -> None:
        rows = [{"twitchId": f"v{n}", "chatUrl": "c"} for n in range(count)]
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self.server.url}/__load", json={"table": "videos", "rows": rows}
            ) as response,
        ):
            assert response.status == 200


@pytest.fixture
async def driver(convex_process: ConvexServer) -> AsyncIterator[Driver]:
    await convex_process.reset()
    key = SecretStr(convex_process.deploy_key)
    client = ConvexClient(Convex(url=convex_process.url, deploy_key=key))
    await client.start()
    yield Driver(convex_process, client)
    await client.close()


async def test_run_reports_each_batch_and_what_it_is_of(driver: Driver) -> None:
    await driver.videos(5)
    done = await driver.run("up")
    shown = [(each.processed, each.changed, each.total, each.done) for each in driver.seen]
    assert shown == [(2, 2, 5, False), (4, 4, 5, False), (5, 5, 5, True)]
    assert done == driver.seen[-1]
    first = await driver.first()
    assert (first.applied, first.untouched) == (True, False)


async def test_way_back_is_of_what_was_kept_and_goes_on_where_it_stood(driver: Driver) -> None:
    await driver.videos(5)
    await driver.run("up")
    arguments = {"name": FIRST, "direction": "down", "batchSize": 2, "dryRun": False}
    await driver.client.call("mutation", STEP, arguments)  # and then whoever drove it died
    driver.seen.clear()
    await driver.run("down")
    assert [(each.processed, each.total) for each in driver.seen] == [(4, 5), (5, 5)]
    assert (await driver.first()).untouched


async def test_rehearsal_sums_its_batches_up_and_undoes_them(driver: Driver) -> None:
    await driver.videos(5)
    done = await driver.run("up", dry_run=True)
    assert (done.processed, done.changed, done.total) == (5, 5, 5)
    assert (await driver.first()).run is None
    assert all("chat_url" not in row for row in await driver.server.dump("videos"))


async def test_deployment_that_is_away_is_waited_for_a_while(driver: Driver) -> None:
    await driver.videos(1)
    await driver.server.fault("503", count=2, path=STEP)
    assert (await driver.run("up")).done
    assert driver.waited == list(RETRY_SECONDS[:2])
    await driver.server.fault("503", count=len(RETRY_SECONDS) + 1, path=STATUS)
    with pytest.raises(ConvexUnavailable):
        await driver.migrations.status()
    assert driver.waited[2:] == list(RETRY_SECONDS)


async def test_deployment_without_migrations_says_to_deploy(driver: Driver) -> None:
    missing = "Could not find public function for 'x'"
    await driver.server.fault("error", path=STATUS, message=missing)
    with pytest.raises(SettingsError, match="deploy convex/ first"):
        await driver.migrations.status()


async def test_document_that_fails_stops_the_run_and_is_named(driver: Driver) -> None:
    big = {"twitchId": "v", "title": "x" * (2**20 - 1500), "chatUrl": "y" * 1000}
    async with aiohttp.ClientSession() as session:
        body = {"table": "videos", "rows": [big]}
        await session.post(f"{driver.server.url}/__load", json=body)
    with pytest.raises(MigrationFailed, match=rf"{FIRST} stopped at a document.*too large"):
        await driver.run("up")
    first = await driver.first()
    assert first.run is not None
    assert (first.run.state, first.applied, first.untouched) == ("failed", False, False)
    assert first.run.error is not None


async def test_refusal_of_a_rehearsal_is_no_rehearsal(driver: Driver) -> None:
    with pytest.raises(ConvexFunctionError, match="NOT_APPLIED"):
        await driver.run("down", dry_run=True)


async def test_what_is_deployed_is_read_whole(driver: Driver) -> None:
    assert await driver.migrations.contract() == shipped()


async def test_every_document_is_judged_page_by_page(driver: Driver) -> None:
    await driver.videos(600)
    stricter = {
        "type": "object",
        "value": {"twitchId": {"fieldType": {"type": "string"}, "optional": False}},
    }
    found = [each async for each in driver.migrations.invalid("videos", stricter)]
    refused = [each for each in found if isinstance(each, Invalid)]
    assert sum(each for each in found if isinstance(each, int)) == 600
    assert len({each.id for each in refused}) == 600
    assert refused[0].reasons == ("chatUrl is not in the schema",)


async def test_confirming_forgets_batch_by_batch(driver: Driver) -> None:
    await driver.videos(5)
    await driver.run("up")
    assert await driver.migrations.confirm(FIRST, batch_size=2) == 5
    first = await driver.first()
    assert first.run is not None
    assert first.run.confirmed
