"""What runs beside the requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import pytest

from gateway.app.upkeep import prune, prune_jobs
from gateway.core.error import StoreUnavailable
from gateway.settings.delivery import Webhooks
from tests.support.delivery import until

NOW = 1_700_000_000.0
DAY = 86400.0


class Records:
    """Every store of which something is pruned; `away` names what it cannot delete."""

    def __init__(self, *away: str) -> None:
        self.asked: dict[str, tuple[float, ...]] = {}
        self.away = Counter(away)

    async def drop_payloads(self, before: float) -> int:
        return self._note("payloads", before)

    async def prune(self, *times: float) -> int:
        names = {1: "deliveries", 2: "callbacks"}
        return self._note(names[len(times)], *times)

    def _note(self, name: str, *times: float) -> int:
        self.asked[name] = times
        if self.away[name]:
            raise StoreUnavailable("the store is away")
        return 1


class Lines:
    def __init__(self, records: Records) -> None:
        self._records = records

    async def prune(self, before: float) -> int:
        return self._records._note("audit", before)


@pytest.mark.parametrize("away", [(), ("payloads", "callbacks")])
async def test_each_kind_of_record_is_deleted_after_its_own_time_whatever_fails(
    away: tuple[str, ...],
) -> None:
    records = Records(*away)
    work = prune(records, records, Lines(records), Webhooks(), lambda: NOW)  # type: ignore[arg-type]
    task = asyncio.create_task(work)
    try:
        await until(lambda: len(records.asked) == 4)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert records.asked == {
        "payloads": (NOW - 7 * DAY,),
        "deliveries": (NOW - 30 * DAY,),
        "callbacks": (NOW - 30 * DAY, NOW),
        "audit": (NOW - 365 * DAY,),
    }


async def test_jobs_are_deleted_after_their_time() -> None:
    asked: list[float] = []

    class Jobs:
        async def prune(self, before: float) -> int:
            asked.append(before)
            raise StoreUnavailable("the store is away")

    task = asyncio.create_task(prune_jobs(Jobs(), 30 * DAY, lambda: NOW))  # type: ignore[arg-type]
    try:
        await until(lambda: bool(asked))
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert asked == [NOW - 30 * DAY]
