"""Convex in the health report: what fails now, and what it refused within the hour."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.outbox import Attempt, DeliveryStatus
from gateway.core.retry import Dead, ErrorKind
from gateway.delivery.dead_letter import DeadLetters
from gateway.store.sqlite import Database, SqliteOutbox
from gateway.web.convex_health import RECENT_SECONDS, check_convex
from gateway.web.health import Reading, Status
from tests.support.delivery import make_message
from tests.support.fakes import FakeClock


class Convex:
    """What a check looks at: a sink that says what a test has it say, and an outbox."""

    def __init__(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        self.outbox, self.clock = outbox, clock
        self.error: str | None = None
        self._letters = DeadLetters(outbox, clock, lambda: None)
        self.check = check_convex(lambda: self.error, self._letters, clock)

    async def refuse(self, number: int) -> None:
        message = make_message(
            id=f"dlv_{number}",
            sink="convex",
            destination="convex",
            job_id=f"j{number}",
            created_at=self.clock.at,
            due_at=self.clock.at,
        )
        await self.outbox.enqueue([message])
        (claim,) = await self.outbox.claim("convex", 1, self.clock.at, 30.0)
        attempt = Attempt(
            message.id, 1, self.clock.at, 0.1, 200, ErrorKind.REJECTED, f"why {number}"
        )
        verdict = Dead(DeliveryStatus.EXHAUSTED)
        assert await self.outbox.settle(claim, verdict, attempt, self.clock.at)


@pytest.fixture
async def convex(tmp_path: Path) -> AsyncIterator[Convex]:
    database = Database(tmp_path / "gateway.db")
    await database.open()
    yield Convex(SqliteOutbox(database), FakeClock())
    await database.close()


def detail(count: int) -> dict[str, int]:
    return {"dead_letters_of_the_last_hour": count}


async def test_deployment_that_takes_everything_is_healthy(convex: Convex) -> None:
    assert await convex.check() == Reading(detail=detail(0))


async def test_deployment_that_fails_degrades_with_its_own_words(convex: Convex) -> None:
    convex.error = "configuration: answered 401"
    expected = Reading(Status.DEGRADED, "configuration: answered 401", detail(0))
    assert await convex.check() == expected


async def test_refusals_degrade_for_an_hour_and_say_where_they_are(convex: Convex) -> None:
    await convex.refuse(1)
    said = "1 message was refused (`gateway convex dead`), the last: why 1"
    assert await convex.check() == Reading(Status.DEGRADED, said, detail(1))
    convex.clock.at += 10.0
    await convex.refuse(2)
    said = "2 messages were refused (`gateway convex dead`), the last: why 2"
    assert await convex.check() == Reading(Status.DEGRADED, said, detail(2))
    convex.clock.at += RECENT_SECONDS + 1
    assert await convex.check() == Reading(detail=detail(0))


async def test_replayed_letter_concerns_nobody_any_more(convex: Convex) -> None:
    await convex.refuse(1)
    await convex._letters.replay("dlv_1")
    assert await convex.check() == Reading(detail=detail(0))
