"""What every outbox keeps: nothing lost, order where it is promised, no verdict overwritten."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest

from gateway.core.error import InvalidRequest
from gateway.core.outbox import Attempt, Backlog, Claim, Delivery, DeliveryStatus, Message
from gateway.core.retry import Dead, Delivered, RetryAt, Verdict
from gateway.store.outbox import DeliveryQuery, Outbox
from tests.support.store import NOW, Stores, attempt_at, message, new_job, timeline_of

LEASE_SECONDS = 30.0


async def claim(
    outbox: Outbox, now: float = NOW, limit: int = 100, busy: Collection[str] = ()
) -> Sequence[Claim[Message]]:
    return await outbox.claim("webhook", limit, now, LEASE_SECONDS, busy=busy)


async def claimed(outbox: Outbox, now: float = NOW, limit: int = 100) -> list[int]:
    return [found.item.sequence for found in await claim(outbox, now, limit)]


async def settle(outbox: Outbox, held: Claim[Message], verdict: Verdict, at: float = NOW) -> bool:
    return await outbox.settle(held, verdict, attempt_at(held, at), at)


async def delivery(outbox: Outbox, wanted: Message) -> Delivery:
    found = await outbox.get(wanted.id)
    assert found is not None
    return found


async def status(outbox: Outbox, wanted: Message) -> DeliveryStatus:
    return (await delivery(outbox, wanted)).message.status


# --- entering -------------------------------------------------------------------------------------


async def test_every_field_of_a_message_survives(outbox: Outbox) -> None:
    given = message(
        7,
        replaceable=True,
        request_id="req-1",
        traceparent="00-a-b-01",
        tracestate="v=1",
        body=b"\x00\xff bytes",
    )
    await outbox.enqueue([given])
    assert await delivery(outbox, given) == Delivery(given, None)
    (held,) = await claim(outbox)
    assert held.item == replace(given, attempt=1, status=DeliveryStatus.IN_FLIGHT)
    assert held.lease_until == NOW + LEASE_SECONDS


async def test_message_already_there_is_left_as_it_is(outbox: Outbox) -> None:
    await outbox.enqueue([message(1)])
    (held,) = await claim(outbox)
    await settle(outbox, held, Delivered())
    await outbox.enqueue([message(1, body=b"other"), message(2)])
    kept = await delivery(outbox, message(1))
    assert kept.message.status is DeliveryStatus.SUCCEEDED
    assert kept.message.body == message(1).body
    assert await claimed(outbox) == [2]


async def test_message_that_arrives_ended_is_only_logged(outbox: Outbox) -> None:
    skipped = message(1, status=DeliveryStatus.SKIPPED)
    await outbox.enqueue([skipped, message(2)])
    assert await claimed(outbox) == [2]
    assert (await delivery(outbox, skipped)).finished_at == NOW


# --- claims ---------------------------------------------------------------------------------------


async def test_message_is_claimed_when_it_is_due_and_not_before(outbox: Outbox) -> None:
    await outbox.enqueue([message(1, due_at=NOW + 5)])
    assert await claimed(outbox, NOW + 4.9) == []
    assert await claimed(outbox, NOW + 5) == [1]


async def test_claim_takes_one_sink_only(outbox: Outbox) -> None:
    await outbox.enqueue([message(1, sink="convex", destination="convex")])
    assert await claimed(outbox) == []
    assert len(await outbox.claim("convex", 10, NOW, LEASE_SECONDS)) == 1


async def test_oldest_due_come_first_up_to_the_limit(outbox: Outbox) -> None:
    order = [3, 1, 4, 2]
    await outbox.enqueue(
        [message(n, job_id=f"j{n}", destination=f"wh_{n}", due_at=NOW - n) for n in order]
    )
    assert await claimed(outbox, limit=3) == [4, 3, 2]
    assert await claimed(outbox, limit=3) == [1]


async def test_one_destination_does_not_fill_a_batch(outbox: Outbox) -> None:
    flood = [message(n, job_id=f"j{n}", destination="wh_flood", at=NOW - 9) for n in range(50)]
    await outbox.enqueue([*flood, message(99, destination="wh_other")])
    first = await claim(outbox, limit=16)
    assert "wh_other" in {held.item.destination for held in first}
    again = await claim(outbox, limit=16)
    assert {held.item.destination for held in again} == {"wh_flood"}


@pytest.mark.parametrize("share", [1, 2, 7])
async def test_claim_takes_no_more_than_its_share_of_one_destination(
    outbox: Outbox, share: int
) -> None:
    sent = [
        message(n, job_id=f"j{n}", destination=f"wh_{n % 3}", at=NOW - 9 + n / 100)
        for n in range(30)
    ]
    await outbox.enqueue(sent)
    held = await outbox.claim("webhook", 100, NOW, LEASE_SECONDS, share=share)
    counts = Counter(each.item.destination for each in held)
    assert set(counts) == {"wh_0", "wh_1", "wh_2"}
    assert max(counts.values()) == share


async def test_everything_is_handed_out_in_the_end_and_once(outbox: Outbox) -> None:
    sent = [
        message(n, job_id=f"j{n}", destination=f"wh_{n % 5}", at=NOW - n % 7) for n in range(60)
    ]
    await outbox.enqueue(sent)
    seen: list[str] = []
    while batch := await claim(outbox, limit=8):
        seen += [held.item.id for held in batch]
    assert sorted(seen) == sorted(found.id for found in sent)


async def test_busy_destination_is_passed_over(outbox: Outbox) -> None:
    await outbox.enqueue([message(1, destination="wh_1"), message(2, destination="wh_2")])
    (held,) = await claim(outbox, busy=["wh_1", 'odd"name'])
    assert held.item.destination == "wh_2"
    assert await claimed(outbox) == [1]


async def test_concurrent_claims_share_no_message(outbox: Outbox) -> None:
    await outbox.enqueue([message(n, job_id=f"j{n}", destination=f"wh_{n}") for n in range(20)])
    batches = await asyncio.gather(*(claim(outbox, limit=5) for _ in range(6)))
    ids = [held.item.id for batch in batches for held in batch]
    assert len(ids) == len(set(ids)) == 20


async def test_expired_lease_is_claimable_as_a_further_attempt(outbox: Outbox) -> None:
    await outbox.enqueue([message(1)])
    (old,) = await claim(outbox)
    assert await claimed(outbox, NOW + LEASE_SECONDS - 0.1) == []
    (new,) = await claim(outbox, NOW + LEASE_SECONDS)
    assert (old.item.attempt, new.item.attempt) == (1, 2)
    assert new.fence > old.fence


async def test_voided_lease_keeps_the_count_of_attempts(stores: Stores) -> None:
    await stores.outbox.enqueue([message(1)])
    await claim(stores.outbox)
    assert await stores.jobs.void_leases() == 1
    assert await status(stores.outbox, message(1)) is DeliveryStatus.PENDING
    (again,) = await claim(stores.outbox)
    assert again.item.attempt == 2


# --- order ----------------------------------------------------------------------------------------


async def test_later_message_waits_while_the_first_attempt_is_under_way(outbox: Outbox) -> None:
    await outbox.enqueue([message(2), message(1)])
    (held,) = await claim(outbox)
    assert held.item.sequence == 1
    assert await claimed(outbox) == []
    await settle(outbox, held, Delivered())
    assert await claimed(outbox) == [2]


async def test_failing_message_does_not_block_later_ones(outbox: Outbox) -> None:
    await outbox.enqueue([message(1), message(2)])
    (held,) = await claim(outbox)
    await settle(outbox, held, RetryAt(NOW + 60))
    assert await claimed(outbox) == [2]
    assert sorted(await claimed(outbox, NOW + 60 + LEASE_SECONDS)) == [1, 2]


async def test_strict_order_waits_until_the_earlier_one_has_ended(outbox: Outbox) -> None:
    await outbox.enqueue([message(n, strict_order=True) for n in (1, 2, 3)])
    (held,) = await claim(outbox)
    await settle(outbox, held, RetryAt(NOW + 60))
    assert await claimed(outbox, NOW + 1) == []
    (held,) = await claim(outbox, NOW + 60)
    assert held.item.sequence == 1
    await settle(outbox, held, Dead(DeliveryStatus.EXHAUSTED))
    assert await claimed(outbox, NOW + 60) == [2]


async def test_message_whose_claim_was_lost_before_a_verdict_still_goes_first(
    outbox: Outbox,
) -> None:
    await outbox.enqueue([message(1), message(2)])
    await claim(outbox)
    assert await claimed(outbox, NOW + LEASE_SECONDS) == [1]


async def test_order_holds_for_messages_that_come_later(outbox: Outbox) -> None:
    await outbox.enqueue([message(1)])
    (held,) = await claim(outbox)
    await outbox.enqueue([message(2)])
    assert await claimed(outbox) == []
    await settle(outbox, held, Delivered())
    assert await claimed(outbox) == [2]


async def test_order_survives_voided_leases(stores: Stores) -> None:
    await stores.outbox.enqueue([message(1), message(2)])
    await claim(stores.outbox)
    await stores.jobs.void_leases()
    assert await claimed(stores.outbox) == [1]


async def test_other_jobs_and_destinations_are_not_held_up(outbox: Outbox) -> None:
    await outbox.enqueue([message(1, job_id="job-1")])
    await claim(outbox)
    await outbox.enqueue([message(2, job_id="job-2"), message(3, destination="wh_2")])
    assert sorted(await claimed(outbox)) == [2, 3]


async def test_cancelled_and_superseded_messages_hold_up_nothing(outbox: Outbox) -> None:
    await outbox.enqueue([message(1, replaceable=True), message(2)])
    await outbox.enqueue([message(3, supersedes=True)])
    assert await claimed(outbox) == [2]


# --- supersession ---------------------------------------------------------------------------------


async def test_only_earlier_replaceable_messages_are_superseded(outbox: Outbox) -> None:
    await outbox.enqueue(
        [
            message(1),
            message(2, replaceable=True),
            message(3, replaceable=True, supersedes=True),
            message(4, replaceable=True),
        ]
    )
    statuses = [await status(outbox, message(n)) for n in (1, 2, 3, 4)]
    waiting, superseded = DeliveryStatus.PENDING, DeliveryStatus.SUPERSEDED
    assert statuses == [waiting, superseded, waiting, waiting]
    assert (await delivery(outbox, message(2))).finished_at == NOW


async def test_retrying_message_is_superseded(outbox: Outbox) -> None:
    await outbox.enqueue([message(1, replaceable=True)])
    (held,) = await claim(outbox)
    await settle(outbox, held, RetryAt(NOW + 60))
    await outbox.enqueue([message(2, supersedes=True, at=NOW + 1)])
    assert await status(outbox, message(1)) is DeliveryStatus.SUPERSEDED
    assert await claimed(outbox, NOW + 100) == [2]


async def test_retry_of_what_was_superseded_in_flight_is_not_made(outbox: Outbox) -> None:
    await outbox.enqueue([message(1, replaceable=True)])
    (held,) = await claim(outbox)
    await outbox.enqueue([message(2, supersedes=True)])
    assert await status(outbox, message(1)) is DeliveryStatus.IN_FLIGHT
    assert await settle(outbox, held, RetryAt(NOW + 1))
    ended = await delivery(outbox, message(1))
    assert ended.message.status is DeliveryStatus.SUPERSEDED
    assert len(ended.attempts) == 1
    assert await claimed(outbox, NOW + 100) == [2]


async def test_success_of_what_was_superseded_in_flight_is_kept(outbox: Outbox) -> None:
    await outbox.enqueue([message(1, replaceable=True)])
    (held,) = await claim(outbox)
    await outbox.enqueue([message(2, supersedes=True)])
    assert await settle(outbox, held, Delivered())
    assert await status(outbox, message(1)) is DeliveryStatus.SUCCEEDED


@pytest.mark.parametrize("restarted", [True, False])
async def test_superseded_message_is_not_sent_again_when_its_lease_ends(
    stores: Stores,
    restarted: bool,  # noqa: FBT001 - a case of the test
) -> None:
    outbox = stores.outbox
    await outbox.enqueue([message(1, replaceable=True)])
    (held,) = await claim(outbox)
    await outbox.enqueue([message(2, supersedes=True)])
    if restarted:
        await stores.jobs.void_leases()
    assert await claimed(outbox, NOW + LEASE_SECONDS) == [2]
    assert await status(outbox, message(1)) is DeliveryStatus.SUPERSEDED
    assert not await settle(outbox, held, Delivered())


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Delivered(), DeliveryStatus.SUCCEEDED),
        (RetryAt(NOW + 60), DeliveryStatus.RETRYING),
        (Dead(DeliveryStatus.EXHAUSTED), DeliveryStatus.EXHAUSTED),
        (Dead(DeliveryStatus.BLOCKED), DeliveryStatus.BLOCKED),
        (Dead(DeliveryStatus.CANCELLED), DeliveryStatus.CANCELLED),
    ],
)
async def test_verdict_is_recorded_with_its_attempt(
    outbox: Outbox, verdict: Verdict, expected: DeliveryStatus
) -> None:
    await outbox.enqueue([message(1)])
    (held,) = await claim(outbox)
    line = attempt_at(
        held,
        NOW + 1,
        status_code=503,
        error_kind="http_status",
        detail="503 Service Unavailable",
        response_excerpt="busy",
    )
    assert await outbox.settle(held, verdict, line, NOW + 2)
    after = await delivery(outbox, message(1))
    assert after.message.status is expected
    assert after.attempts == (line,)
    assert after.finished_at == (NOW + 2 if expected.final else None)


async def test_retry_is_due_when_said(outbox: Outbox) -> None:
    await outbox.enqueue([message(1)])
    (held,) = await claim(outbox)
    await settle(outbox, held, RetryAt(NOW + 60))
    assert await claimed(outbox, NOW + 59) == []
    (again,) = await claim(outbox, NOW + 60)
    assert again.item.attempt == 2
    assert again.item.body == held.item.body


async def test_attempts_are_logged_in_order(outbox: Outbox) -> None:
    await outbox.enqueue([message(1)])
    for number in range(3):
        (held,) = await claim(outbox, NOW + number)
        await settle(outbox, held, RetryAt(NOW + number + 1), NOW + number)
    assert [line.number for line in (await delivery(outbox, message(1))).attempts] == [1, 2, 3]


async def test_expired_lease_cannot_settle_once_claimed_again(outbox: Outbox) -> None:
    await outbox.enqueue([message(1)])
    (old,) = await claim(outbox)
    (new,) = await claim(outbox, NOW + LEASE_SECONDS)
    assert not await settle(outbox, old, Delivered(), NOW + 31)
    assert (await delivery(outbox, message(1))).attempts == ()
    assert await settle(outbox, new, RetryAt(NOW + 90), NOW + 32)
    assert await status(outbox, message(1)) is DeliveryStatus.RETRYING


async def test_claim_settles_once(outbox: Outbox) -> None:
    await outbox.enqueue([message(1)])
    (held,) = await claim(outbox)
    assert await settle(outbox, held, Delivered())
    assert not await settle(outbox, held, Dead(DeliveryStatus.EXHAUSTED))
    assert await status(outbox, message(1)) is DeliveryStatus.SUCCEEDED


async def test_voided_lease_cannot_settle(stores: Stores) -> None:
    await stores.outbox.enqueue([message(1)])
    (held,) = await claim(stores.outbox)
    await stores.jobs.void_leases()
    assert not await settle(stores.outbox, held, Delivered())


# --- what waits -----------------------------------------------------------------------------------


async def test_next_due_at_is_the_earliest_of_due_times_and_leases(outbox: Outbox) -> None:
    assert await outbox.next_due_at("webhook") is None
    await outbox.enqueue([message(1), message(2, destination="wh_2", due_at=NOW + 90)])
    assert await outbox.next_due_at("webhook") == NOW
    (held,) = await claim(outbox)
    assert await outbox.next_due_at("webhook") == NOW + LEASE_SECONDS
    await settle(outbox, held, RetryAt(NOW + 45))
    assert await outbox.next_due_at("webhook") == NOW + 45
    (held,) = await claim(outbox, NOW + 45)
    await settle(outbox, held, Delivered())
    assert await outbox.next_due_at("webhook") == NOW + 90
    assert await outbox.next_due_at("convex") is None


async def test_held_message_does_not_wake_the_dispatcher(outbox: Outbox) -> None:
    await outbox.enqueue([message(1), message(2)])
    await claim(outbox)
    assert await outbox.next_due_at("webhook") == NOW + LEASE_SECONDS


async def test_backlog_counts_what_waits_by_sink(outbox: Outbox) -> None:
    assert await outbox.backlog() == []
    await outbox.enqueue(
        [
            message(1, at=NOW - 5),
            message(2, at=NOW - 3),
            message(1, sink="convex", destination="convex", at=NOW - 9),
        ]
    )
    (held,) = await claim(outbox)
    assert list(await outbox.backlog()) == [
        Backlog("convex", 1, 0, NOW - 9),
        Backlog("webhook", 1, 1, NOW - 3),
    ]
    await settle(outbox, held, Delivered())
    await claim(outbox)
    assert list(await outbox.backlog())[1] == Backlog("webhook", 0, 1, None)


async def test_cancel_ends_what_waits_for_a_destination(outbox: Outbox) -> None:
    await outbox.enqueue([message(n, job_id=f"j{n}") for n in (1, 2)])
    await outbox.enqueue([message(3, destination="wh_2")])
    (held,) = await claim(outbox, limit=1)
    assert await outbox.cancel("wh_1", NOW + 1) == 1
    assert await outbox.cancel("wh_1", NOW + 1) == 0
    assert await claimed(outbox) == [3]
    assert await settle(outbox, held, Delivered())


async def test_cancel_ends_an_attempt_whose_lease_ran_out(outbox: Outbox) -> None:
    await outbox.enqueue([message(1)])
    (held,) = await claim(outbox)
    assert await outbox.cancel("wh_1", NOW + LEASE_SECONDS) == 1
    assert not await settle(outbox, held, Delivered())
    assert await outbox.next_due_at("webhook") is None


async def test_prune_deletes_what_ended_before_and_nothing_else(outbox: Outbox) -> None:
    await outbox.enqueue([message(n, job_id=f"j{n}", destination=f"wh_{n}") for n in range(4)])
    for number, held in enumerate(await claim(outbox, limit=3)):
        await settle(outbox, held, Delivered(), NOW + number)
    assert await outbox.prune(NOW + 2) == 2
    assert await outbox.prune(NOW + 2) == 0
    left = [
        n
        for n in range(4)
        if await outbox.get(message(n, job_id=f"j{n}", destination=f"wh_{n}").id)
    ]
    assert left == [2, 3]


async def test_prune_deletes_any_number(outbox: Outbox) -> None:
    ended = [message(n, status=DeliveryStatus.SKIPPED) for n in range(1201)]
    await outbox.enqueue(ended)
    assert await outbox.prune(NOW + 1) == 1201


async def test_body_is_dropped_before_the_log_of_its_delivery(outbox: Outbox) -> None:
    await outbox.enqueue([message(n, job_id=f"j{n}", destination=f"wh_{n}") for n in range(3)])
    for number, held in enumerate(await claim(outbox, limit=2)):
        await settle(outbox, held, Delivered(), NOW + number)
    assert await outbox.drop_payloads(NOW + 1) == 1
    assert await outbox.drop_payloads(NOW + 1) == 0
    bodies = []
    for n in range(3):
        found = await outbox.get(message(n, job_id=f"j{n}", destination=f"wh_{n}").id)
        assert found is not None
        bodies.append(found.message.body)
    assert bodies == [b"", b'{"sequence":1}', b'{"sequence":2}']
    page, _ = await outbox.deliveries(DeliveryQuery("wh_0"))
    assert [len(each.attempts) for each in page] == [1]
    assert await outbox.prune(NOW + 2) == 2


async def test_any_number_of_bodies_is_dropped(outbox: Outbox) -> None:
    await outbox.enqueue([message(n, status=DeliveryStatus.SKIPPED) for n in range(1201)])
    assert await outbox.drop_payloads(NOW + 1) == 1201


# --- the log --------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
async def test_pages_show_every_delivery_once_newest_first(outbox: Outbox, limit: int) -> None:
    sent = [message(n, job_id=f"j{n}", at=NOW + n // 3) for n in range(7)]
    await outbox.enqueue([*sent, message(99, destination="wh_2")])
    seen: list[tuple[float, str]] = []
    cursor: str | None = None
    while True:
        page, cursor = await outbox.deliveries(DeliveryQuery("wh_1", cursor=cursor, limit=limit))
        assert 0 < len(page) <= limit
        seen += [(found.message.created_at, found.message.id) for found in page]
        if cursor is None:
            break
    assert seen == sorted(((m.created_at, m.id) for m in sent), reverse=True)


async def test_log_is_filtered_and_shows_attempts_without_bodies(outbox: Outbox) -> None:
    await outbox.enqueue(
        [
            message(1, job_id="a", kind="job.started"),
            message(2, job_id="b", kind="job.failed", at=NOW + 1),
        ]
    )
    (held,) = [found for found in await claim(outbox) if found.item.job_id == "a"]
    await settle(outbox, held, Delivered())

    async def found(**filters: str | DeliveryStatus) -> list[int]:
        page, _ = await outbox.deliveries(replace(DeliveryQuery("wh_1"), **filters))  # type: ignore[arg-type]  # a mapping of the query's own fields
        assert all(line.message.body == b"" for line in page)
        return [line.message.sequence for line in page]

    assert await found() == [2, 1]
    assert await found(status=DeliveryStatus.SUCCEEDED) == [1]
    assert await found(kind="job.failed") == [2]
    assert await found(job_id="a") == [1]
    assert await found(job_id="a", kind="job.failed") == []
    page, _ = await outbox.deliveries(DeliveryQuery("wh_1", job_id="a"))
    assert page[0].attempts == (Attempt(held.item.id, 1, NOW, 0.25),)


async def test_one_delivery_comes_with_its_body(outbox: Outbox) -> None:
    await outbox.enqueue([message(1)])
    assert (await delivery(outbox, message(1))).message.body == message(1).body
    assert await outbox.get("dlv_unknown") is None


async def test_malformed_cursor_is_an_invalid_request(outbox: Outbox) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await outbox.deliveries(DeliveryQuery("wh_1", cursor="nonsense"))


async def test_messages_of_a_job_can_be_claimed_once_it_is_recorded(stores: Stores) -> None:
    change = new_job()
    await stores.jobs.record(change, timeline_of(change), [message(1)])
    assert await claimed(stores.outbox) == [1]
