"""What the desk of dead letters takes, and what it shows of one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.error import InvalidRequest, NotFound
from gateway.core.outbox import Attempt, DeliveryStatus
from gateway.core.retry import Dead, ErrorKind
from gateway.delivery.dead_letter import DeadLetters
from gateway.store.sqlite import Database, SqliteOutbox
from gateway.web.convex_admin import ConvexDesk
from tests.support.delivery import make_message

NOW = 1_767_225_600.0


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[ConvexDesk]:
    """A desk with one dead letter, `dlv_1`."""
    database = Database(tmp_path / "gateway.db")
    await database.open()
    outbox = SqliteOutbox(database)
    message = make_message(
        id="dlv_1",
        sink="convex",
        destination="convex",
        kind="update_progress",
        created_at=NOW,
        due_at=NOW,
    )
    await outbox.enqueue([message])
    (claim,) = await outbox.claim("convex", 1, NOW, 30.0)
    attempt = Attempt("dlv_1", 1, NOW, 0.1, 200, ErrorKind.REJECTED, "why; what to do")
    await outbox.settle(claim, Dead(DeliveryStatus.EXHAUSTED), attempt, NOW)
    yield ConvexDesk(DeadLetters(outbox, lambda: NOW, lambda: None))
    await database.close()


async def test_letter_says_what_was_called_for_which_job_and_why_it_ended(
    desk: ConvexDesk,
) -> None:
    assert await desk.dead("limit=10") == {
        "dead": [
            {
                "id": "dlv_1",
                "operation": "update_progress",
                "job_id": "j1",
                "attempts": 1,
                "ended_at": "2026-01-01T00:00:00.000Z",
                "error_kind": "rejected",
                "detail": "why; what to do",
            }
        ],
        "next_cursor": None,
    }


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "cursor=x", "owner=a"])
async def test_query_that_is_none_is_refused(desk: ConvexDesk, query: str) -> None:
    with pytest.raises(InvalidRequest):
        await desk.dead(query)


@pytest.mark.parametrize(
    "document",
    [{}, {"all": False}, {"all": 1}, {"id": 1}, {"id": "dlv_1", "all": True}, {"ids": ["dlv_1"]}],
)
async def test_replay_of_nothing_that_is_named_is_refused(
    desk: ConvexDesk, document: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="for one dead letter"):
        await desk.replay(document)
    assert len((await desk.dead(""))["dead"]) == 1


async def test_replay_of_what_is_no_dead_letter_is_not_found(desk: ConvexDesk) -> None:
    with pytest.raises(NotFound):
        await desk.replay({"id": "dlv_2"})
