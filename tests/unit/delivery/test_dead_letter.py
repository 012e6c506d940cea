"""What Convex refused: listed until it is replayed, and replayed once however often it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.error import Conflict, NotFound
from gateway.core.outbox import Attempt, DeliveryStatus, Message
from gateway.core.retry import Dead, Delivered, ErrorKind, Verdict
from gateway.delivery.dead_letter import DeadLetters
from gateway.store.sqlite import Database, SqliteOutbox
from tests.support.delivery import make_message

NOW = 1_000_000.0


class Desk:
    """Dead letters over a real outbox, and messages that end as a test says."""

    def __init__(self, outbox: SqliteOutbox) -> None:
        self.outbox = outbox
        self.woken = 0
        self.now = NOW
        self.letters = DeadLetters(outbox, lambda: self.now, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    async def end(self, verdict: Verdict) -> None:
        """Claim what waits, and have it end so."""
        for claim in await self.outbox.claim("convex", 100, self.now, 30.0):
            kind = None if isinstance(verdict, Delivered) else ErrorKind.REJECTED
            attempt = Attempt(claim.item.id, claim.item.attempt, self.now, 0.1, 200, kind, "why")
            assert await self.outbox.settle(claim, verdict, attempt, self.now)

    async def dead(self) -> list[str]:
        page, cursor = await self.letters.page(None, 100)
        assert cursor is None
        return [each.message.id for each in page]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    database = Database(tmp_path / "gateway.db")
    await database.open()
    yield Desk(SqliteOutbox(database))
    await database.close()


def message(number: int) -> Message:
    return make_message(
        id=f"dlv_{number}",
        sink="convex",
        destination="convex",
        kind="update_progress",
        job_id=f"j{number}",
        body=b'{"jobId":"j"}',
        created_at=NOW - 10 + number,
        due_at=NOW,
        replaceable=True,
        supersedes=True,
        strict_order=True,
    )


DEAD = Dead(DeliveryStatus.EXHAUSTED)


async def test_dead_letters_are_listed_newest_first_with_why(desk: Desk) -> None:
    await desk.outbox.enqueue([message(1), message(2)])
    await desk.end(DEAD)
    page, _ = await desk.letters.page(None, 100)
    assert [each.message.id for each in page] == ["dlv_2", "dlv_1"]
    assert page[0].attempts[-1].detail == "why"


async def test_what_succeeded_or_waits_is_no_dead_letter(desk: Desk) -> None:
    await desk.outbox.enqueue([message(1)])
    await desk.end(Delivered())
    await desk.outbox.enqueue([message(2)])
    assert await desk.dead() == []
    for message_id in ("dlv_1", "dlv_2", "dlv_3"):
        with pytest.raises(NotFound, match=message_id):
            await desk.letters.replay(message_id)


async def test_replay_sends_the_same_content_with_attempts_anew(desk: Desk) -> None:
    await desk.outbox.enqueue([message(1)])
    await desk.end(DEAD)
    sent = await desk.letters.replay("dlv_1")
    (claim,) = await desk.outbox.claim("convex", 10, NOW, 30.0)
    old = message(1)
    assert claim.item == replace(sent, body=old.body, attempt=1, status=DeliveryStatus.IN_FLIGHT)
    assert (sent.body, sent.sequence, sent.job_id) == (old.body, old.sequence, old.job_id)
    # It must neither be replaced by, nor replace, what the job has to say today.
    assert (sent.replaceable, sent.supersedes) == (False, False)
    assert desk.woken == 1


async def test_replayed_letter_leaves_the_list_and_its_replay_joins_it_if_refused(
    desk: Desk,
) -> None:
    await desk.outbox.enqueue([message(1)])
    await desk.end(DEAD)
    sent = await desk.letters.replay("dlv_1")
    assert await desk.dead() == []
    await desk.end(DEAD)
    assert await desk.dead() == [sent.id]
    again = await desk.letters.replay(sent.id)
    await desk.end(Delivered())
    assert await desk.dead() == []
    assert len({"dlv_1", sent.id, again.id}) == 3


async def test_replay_asked_for_twice_is_sent_once(desk: Desk) -> None:
    await desk.outbox.enqueue([message(1)])
    await desk.end(DEAD)
    first = await desk.letters.replay("dlv_1")
    second = await desk.letters.replay("dlv_1")
    assert first.id == second.id
    assert len(await desk.outbox.claim("convex", 10, NOW, 30.0)) == 1


async def test_all_are_replayed_in_the_order_of_their_events(desk: Desk) -> None:
    await desk.outbox.enqueue([message(number) for number in range(205)])
    for _ in range(60):
        await desk.end(DEAD)
    assert await desk.letters.replay_all() == (205, 0)
    assert await desk.letters.replay_all() == (0, 0)
    claims = [
        claim for _ in range(60) for claim in await desk.outbox.claim("convex", 10, NOW, 30.0)
    ]
    assert [claim.item.job_id for claim in claims] == [f"j{number}" for number in range(205)]


async def test_content_that_is_no_longer_kept_is_said(desk: Desk) -> None:
    await desk.outbox.enqueue([message(1)])
    await desk.end(DEAD)
    await desk.outbox.drop_payloads(NOW + 1)
    with pytest.raises(Conflict, match="no longer kept"):
        await desk.letters.replay("dlv_1")
    assert await desk.letters.replay_all() == (0, 1)


async def test_recent_ones_are_those_that_ended_of_late(desk: Desk) -> None:
    await desk.outbox.enqueue([message(1)])
    await desk.end(DEAD)
    desk.now += 100
    await desk.outbox.enqueue([message(2)])
    await desk.end(DEAD)
    recent = await desk.letters.recent(NOW + 50)
    assert [each.message.id for each in recent] == ["dlv_2"]
