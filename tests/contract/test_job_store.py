"""What every job store keeps: a change whole or not at all, one winner, one holder of a claim."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.core.error import InvalidRequest
from gateway.core.job import Job, JobChange, State
from gateway.core.outbox import Claim, DeliveryStatus
from gateway.store.job import JobQuery, JobStore
from gateway.store.outbox import DeliveryQuery
from tests.support.store import NOW, Stores, message, messages_of, new_job, next_change, timeline_of


async def record(jobs: JobStore, change: JobChange) -> bool:
    return await jobs.record(change, timeline_of(change), messages_of(change))


async def stored(jobs: JobStore, job_id: str = "job-1") -> Job:
    job = await jobs.get(job_id)
    assert job is not None
    return job


async def claim_all(jobs: JobStore, now: float, upstream: str | None = None) -> Sequence[str]:
    return [claim.item.id for claim in await jobs.claim_due(upstream, 100, now, 30.0)]


# --- record ---------------------------------------------------------------------------------------


async def test_new_job_is_stored_with_its_events_and_messages(stores: Stores) -> None:
    change = new_job(state=State.COMPLETED)
    assert await record(stores.jobs, change)
    assert await stored(stores.jobs) == replace(change.job, version=1)
    assert list(await stores.jobs.timeline("job-1")) == list(timeline_of(change))
    page, _ = await stores.outbox.deliveries(DeliveryQuery("wh_1"))
    assert {delivery.message.sequence for delivery in page} == {1, 2}


async def test_every_field_of_a_job_survives(jobs: JobStore) -> None:
    change = new_job(
        subject="video-7",
        stage="Transcribing",
        percentage=42.5,
        stages_completed=3,
        total_stages=7,
        stage_seconds={"Queued": 1.5},
        error={"error_type": "x", "is_retryable": True},
        results={"nested": [1, "zwei", None, {"a": 1.25}]},
        retry_count=2,
        webhook_urls=("https://a.example/", "https://b.example/"),
        webhook_events=("job.completed",),
        request_id="req-1",
        traceparent="00-a-b-01",
        tracestate="v=1",
    )
    await record(jobs, change)
    job = await stored(jobs)
    assert job == replace(change.job, version=1)
    assert job.state is State.QUEUED
    assert isinstance(job.webhook_urls, tuple)


async def test_unknown_job_is_none(jobs: JobStore) -> None:
    assert await jobs.get("nobody") is None
    assert await jobs.timeline("nobody") == []


async def test_second_insert_is_refused_and_writes_nothing(stores: Stores) -> None:
    first = new_job()
    await record(stores.jobs, first)
    other = new_job(owner="mallory", incarnation="inc-2")
    assert not await stores.jobs.record(other, timeline_of(other), [message(9)])
    assert (await stored(stores.jobs)).owner == "alice"
    assert await stores.outbox.get(message(9).id) is None


async def test_each_record_raises_the_version_by_one(jobs: JobStore) -> None:
    await record(jobs, new_job())
    assert (await stored(jobs)).version == 1
    await record(jobs, next_change(await stored(jobs), NOW + 1, percentage=5.0))
    assert (await stored(jobs)).version == 2


async def test_stale_version_is_refused_and_writes_nothing(stores: Stores) -> None:
    jobs = stores.jobs
    await record(jobs, new_job())
    old = await stored(jobs)
    await record(jobs, next_change(old, NOW + 1, percentage=5.0))
    late = next_change(old, NOW + 2, state=State.FAILED)
    assert not await jobs.record(late, timeline_of(late), [message(9)])
    assert (await stored(jobs)).state is State.RUNNING
    assert await stores.outbox.get(message(9).id) is None


async def test_change_of_a_job_that_is_not_there_is_refused(jobs: JobStore) -> None:
    assert not await record(jobs, next_change(new_job().job, NOW + 1, percentage=5.0))
    assert await jobs.get("job-1") is None


async def test_of_concurrent_records_on_one_version_one_wins(stores: Stores) -> None:
    jobs = stores.jobs
    await record(jobs, new_job())
    before = await stored(jobs)
    rivals = [next_change(before, NOW + 1, percentage=float(n)) for n in range(1, 21)]
    won = await asyncio.gather(*(record(jobs, change) for change in rivals))
    assert won.count(True) == 1
    after = await stored(jobs)
    assert after.percentage == rivals[won.index(True)].job.percentage
    assert [entry.sequence for entry in await jobs.timeline("job-1")] == [1, 2]


async def test_change_without_events_is_recorded_too(jobs: JobStore) -> None:
    await record(jobs, new_job())
    before = await stored(jobs)
    assert await jobs.record(JobChange(before, replace(before, lost_since=NOW + 5)), [], [])
    assert (await stored(jobs)).lost_since == NOW + 5


async def test_timeline_is_in_order_and_starts_after_the_given_sequence(jobs: JobStore) -> None:
    await record(jobs, new_job())
    for number in range(1, 5):
        change = next_change(await stored(jobs), NOW + number, percentage=10.0 * number)
        await record(jobs, change)
    whole = await jobs.timeline("job-1")
    assert [entry.sequence for entry in whole] == list(range(1, len(whole) + 1))
    assert len(whole) >= 5
    assert list(await jobs.timeline("job-1", after_sequence=3)) == list(whole)[3:]


async def test_superseding_message_ends_the_waiting_replaceable_ones(stores: Stores) -> None:
    first = new_job()
    await stores.jobs.record(first, timeline_of(first), [message(1), message(2, replaceable=True)])
    change = next_change(await stored(stores.jobs), NOW + 1, state=State.COMPLETED)
    newer = message(3, at=NOW + 1, supersedes=True)
    await stores.jobs.record(change, timeline_of(change), [newer])
    page, _ = await stores.outbox.deliveries(DeliveryQuery("wh_1"))
    statuses = {delivery.message.sequence: delivery.message.status for delivery in page}
    assert statuses == {
        1: DeliveryStatus.PENDING,
        2: DeliveryStatus.SUPERSEDED,
        3: DeliveryStatus.PENDING,
    }


async def test_supersession_stays_within_destination_and_job(stores: Stores) -> None:
    others = [message(1, destination="wh_2", replaceable=True)]
    others += [message(1, job_id="job-2", replaceable=True)]
    await stores.outbox.enqueue(others)
    change = new_job()
    await stores.jobs.record(change, timeline_of(change), [message(2, supersedes=True)])
    for other in others:
        delivery = await stores.outbox.get(other.id)
        assert delivery is not None
        assert delivery.message.status is DeliveryStatus.PENDING


# --- claims ---------------------------------------------------------------------------------------


async def test_new_job_is_due_at_once(jobs: JobStore) -> None:
    await record(jobs, new_job())
    assert await claim_all(jobs, NOW) == ["job-1"]


async def test_job_that_is_terminal_from_the_start_is_never_due(jobs: JobStore) -> None:
    await record(jobs, new_job(state=State.FAILED))
    assert await claim_all(jobs, NOW + 1e9) == []


async def test_leased_job_is_not_handed_out_twice(jobs: JobStore) -> None:
    await record(jobs, new_job())
    first, second = await asyncio.gather(claim_all(jobs, NOW), claim_all(jobs, NOW))
    assert sorted([*first, *second]) == ["job-1"]


async def test_expired_lease_is_claimable_under_a_higher_fence(jobs: JobStore) -> None:
    await record(jobs, new_job())
    (old,) = await jobs.claim_due(None, 10, NOW, 30.0)
    assert old.lease_until == NOW + 30.0
    assert await claim_all(jobs, NOW + 29.9) == []
    (new,) = await jobs.claim_due(None, 10, NOW + 30.0, 30.0)
    assert new.fence > old.fence
    assert not await jobs.renew([old], NOW + 99)
    assert not await jobs.release(old, NOW + 99)
    assert await jobs.renew([new], NOW + 99)


async def test_renewed_lease_lasts_longer(jobs: JobStore) -> None:
    await record(jobs, new_job())
    (claim,) = await jobs.claim_due(None, 10, NOW, 30.0)
    assert await jobs.renew([claim], NOW + 60)
    assert await claim_all(jobs, NOW + 59) == []
    assert await claim_all(jobs, NOW + 60) == ["job-1"]


async def test_many_leases_are_renewed_at_once_and_those_that_were_lost_are_told_apart(
    jobs: JobStore,
) -> None:
    for number in range(450):
        await record(jobs, new_job(f"job-{number}"))
    claims: list[Claim[Job]] = []
    while batch := await jobs.claim_due(None, 500, NOW, 30.0):
        claims += batch
    lost = claims[::7]
    for claim in lost:
        await jobs.release(claim, NOW + 1)
    kept = await jobs.renew(claims, NOW + 60)
    assert set(kept) == {claim.item.id for claim in claims} - {claim.item.id for claim in lost}
    assert sorted(await claim_all(jobs, NOW + 59)) == sorted(claim.item.id for claim in lost)
    assert not await jobs.renew([], NOW + 60)


async def test_released_job_is_due_when_said_and_cannot_be_released_again(jobs: JobStore) -> None:
    await record(jobs, new_job())
    (claim,) = await jobs.claim_due(None, 10, NOW, 30.0)
    assert await jobs.release(claim, NOW + 5)
    assert await claim_all(jobs, NOW + 4) == []
    assert not await jobs.release(claim, NOW)
    assert await claim_all(jobs, NOW + 5) == ["job-1"]


async def test_record_leaves_a_lease_with_its_holder(jobs: JobStore) -> None:
    await record(jobs, new_job())
    (claim,) = await jobs.claim_due(None, 10, NOW, 30.0)
    await record(jobs, next_change(claim.item, NOW + 1, percentage=3.0))
    assert await claim_all(jobs, NOW + 2) == []
    assert await jobs.renew([claim], NOW + 60)


async def test_ended_job_is_not_due_again_even_when_released(jobs: JobStore) -> None:
    await record(jobs, new_job())
    (claim,) = await jobs.claim_due(None, 10, NOW, 30.0)
    await record(jobs, next_change(claim.item, NOW + 1, state=State.CANCELLED))
    assert await jobs.release(claim, NOW + 2)
    assert await claim_all(jobs, NOW + 1e9) == []


async def test_claim_is_limited_to_an_upstream_and_a_number(jobs: JobStore) -> None:
    for number in range(4):
        await record(jobs, new_job(f"job-{number}", upstream="one" if number % 2 else "two"))
    assert sorted(await claim_all(jobs, NOW, upstream="one")) == ["job-1", "job-3"]
    assert len(await jobs.claim_due(None, 1, NOW, 30.0)) == 1


async def test_longest_due_jobs_are_claimed_first(jobs: JobStore) -> None:
    for number in range(3):
        await record(jobs, new_job(f"job-{number}"))
    for claim in await jobs.claim_due(None, 10, NOW, 30.0):
        await jobs.release(claim, NOW + 10 - int(claim.item.id[-1]))
    claims = await jobs.claim_due(None, 2, NOW + 20, 30.0)
    assert [claim.item.id for claim in claims] == ["job-2", "job-1"]


async def test_voided_leases_are_claimable_at_once_and_useless_to_their_holders(
    stores: Stores,
) -> None:
    await record(stores.jobs, new_job())
    (job_claim,) = await stores.jobs.claim_due(None, 10, NOW, 30.0)
    (message_claim,) = await stores.outbox.claim("webhook", 10, NOW, 30.0)
    assert await stores.jobs.void_leases() == 2
    assert not await stores.jobs.renew([job_claim], NOW + 60)
    assert await claim_all(stores.jobs, NOW) == ["job-1"]
    (again,) = await stores.outbox.claim("webhook", 10, NOW, 30.0)
    assert again.item.id == message_claim.item.id
    assert again.fence > message_claim.fence


# --- views ----------------------------------------------------------------------------------------


async def test_timeline_is_read_in_parts(jobs: JobStore) -> None:
    await record(jobs, new_job())
    for step in range(4):
        job = await stored(jobs)
        await record(jobs, next_change(job, NOW + step, percentage=10.0 * (step + 1)))
    whole = list(await jobs.timeline("job-1"))
    assert len(whole) == 5
    assert list(await jobs.timeline("job-1", 0, 2)) == whole[:2]
    assert list(await jobs.timeline("job-1", 2, 2)) == whole[2:4]
    assert list(await jobs.timeline("job-1", 4, 2)) == whole[4:]
    assert list(await jobs.timeline("job-1", 5, 2)) == []


async def test_unfinished_jobs_come_oldest_first(jobs: JobStore) -> None:
    await record(jobs, new_job("late", NOW + 9))
    await record(jobs, new_job("early", NOW + 1))
    await record(jobs, new_job("over", NOW, state=State.COMPLETED))
    assert [job.id for job in await jobs.unfinished()] == ["early", "late"]


async def test_latest_job_of_a_subject_is_the_newest(jobs: JobStore) -> None:
    await record(jobs, new_job("new", NOW + 5, subject="v"))
    await record(jobs, new_job("old", NOW, subject="v"))
    await record(jobs, new_job("other", NOW + 9, subject="w"))
    latest = await jobs.latest_of_subject("v")
    assert latest is not None
    assert latest.id == "new"
    assert await jobs.latest_of_subject("x") is None


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
async def test_pages_show_every_job_once_newest_first(jobs: JobStore, limit: int) -> None:
    # Equal times: the id decides, or a page's end would swallow or repeat some.
    for number in range(7):
        await record(jobs, new_job(f"job-{number}", NOW + number // 3))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await jobs.list(JobQuery(cursor=cursor, limit=limit))
        assert 0 < len(page) <= limit
        seen += [job.id for job in page]
        if cursor is None:
            break
    assert seen == [f"job-{number}" for number in reversed(range(7))]


async def test_jobs_added_meanwhile_do_not_shift_the_next_page(jobs: JobStore) -> None:
    for number in range(4):
        await record(jobs, new_job(f"job-{number}", NOW + number))
    first, cursor = await jobs.list(JobQuery(limit=2))
    await record(jobs, new_job("newest", NOW + 100))
    second, end = await jobs.list(JobQuery(limit=2, cursor=cursor))
    assert [job.id for job in [*first, *second]] == ["job-3", "job-2", "job-1", "job-0"]
    assert end is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (JobQuery(), {"a", "b", "c"}),
        (JobQuery(owner="alice"), {"a", "b"}),
        (JobQuery(owner="alice", state=State.FAILED), {"b"}),
        (JobQuery(state=State.QUEUED), {"a", "c"}),
        (JobQuery(subject="v"), {"a", "c"}),
        (JobQuery(owner="bob", subject="v"), {"c"}),
        (JobQuery(since=NOW + 1), {"b", "c"}),
        (JobQuery(until=NOW + 1), {"a"}),
        (JobQuery(since=NOW + 1, until=NOW + 2), {"b"}),
        (JobQuery(owner="nobody"), set()),
    ],
)
async def test_list_is_filtered(jobs: JobStore, query: JobQuery, expected: set[str]) -> None:
    await record(jobs, new_job("a", NOW, subject="v"))
    await record(jobs, new_job("b", NOW + 1, subject="w", state=State.FAILED))
    await record(jobs, new_job("c", NOW + 2, subject="v", owner="bob"))
    page, cursor = await jobs.list(query)
    assert {job.id for job in page} == expected
    assert cursor is None


@pytest.mark.parametrize("cursor", ["", "x", "!!", "bnVsbA", "W10", "WzEsMl0", "é", "A" * 999])
async def test_malformed_cursor_is_an_invalid_request(jobs: JobStore, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await jobs.list(JobQuery(cursor=cursor))


# --- retention ------------------------------------------------------------------------------------


async def test_prune_deletes_jobs_that_ended_before_with_all_that_leads_to_them(
    jobs: JobStore,
) -> None:
    for number in range(4):
        await record(jobs, new_job(f"job-{number}", NOW + number, subject="v"))
    for number, at in ((0, 10), (1, 20), (2, 30)):
        change = next_change(await stored(jobs, f"job-{number}"), NOW + at, state=State.CANCELLED)
        await record(jobs, change)
    assert await jobs.prune(NOW + 20) == 1
    assert await jobs.prune(NOW + 30) == 1
    assert await jobs.prune(NOW + 30) == 0
    for query in (JobQuery(), JobQuery(owner="alice"), JobQuery(subject="v")):
        page, _ = await jobs.list(query)
        assert [job.id for job in page] == ["job-3", "job-2"]
    assert await jobs.get("job-0") is None
    assert await jobs.timeline("job-0") == []
    assert [job.id for job in await jobs.unfinished()] == ["job-3"]


async def test_any_number_of_jobs_is_pruned(jobs: JobStore) -> None:
    ended = [new_job(f"job-{n}", NOW + n % 5, state=State.FAILED) for n in range(451)]
    await asyncio.gather(*(jobs.record(change, timeline_of(change), ()) for change in ended))
    assert await jobs.prune(NOW + 100) == 451
    assert await jobs.list(JobQuery()) == ([], None)
