"""What every webhook store keeps: whole subscriptions, found by owner, job and scope."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.core.error import InvalidRequest
from gateway.core.job import State
from gateway.core.webhook import Webhook, WebhookStatus
from gateway.store.audit import AuditQuery
from gateway.store.webhook import WebhookQuery, WebhookStore
from tests.support.store import NOW, Stores, new_job, next_change, webhook


async def stored(webhooks: WebhookStore, number: int = 1) -> Webhook:
    found = await webhooks.get(f"wh_{number}")
    assert found is not None
    return found


async def candidates(webhooks: WebhookStore, owner: str, job_id: str = "job-1") -> list[str]:
    found = [subscription.id for subscription in await webhooks.candidates(owner, job_id)]
    assert len(found) == len(set(found))
    return sorted(found)


async def test_every_field_of_a_webhook_survives(webhooks: WebhookStore) -> None:
    given = webhook(
        events=("job.completed", "job.failed"),
        job_id="job-1",
        filter="data.progress > `50`",
        fields=("job_id", "status"),
        headers={"X-Team": "blue"},
        description="Team blue",
        status=WebhookStatus.PAUSED,
        disabled_reason="gone",
        all_owners=True,
        timeout_seconds=5.0,
        max_retries=2,
        max_per_second=1.5,
        previous_secret="whsec_old",
        previous_secret_expires_at=NOW + 60,
        consecutive_failures=3,
        last_success_at=NOW - 60,
        failing_since=NOW - 30,
        exhausted_count=2,
    )
    assert await webhooks.add(given)
    assert await stored(webhooks) == given


async def test_defaults_survive_too(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    assert await stored(webhooks) == webhook()


async def test_second_add_is_refused(webhooks: WebhookStore) -> None:
    assert await webhooks.add(webhook())
    assert not await webhooks.add(webhook(owner="mallory"))
    assert (await stored(webhooks)).owner == "alice"


async def test_replace_needs_the_stored_revision_and_raises_it(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    changed = replace(webhook(), url="https://new.example/", updated_at=NOW + 9)
    assert not await webhooks.replace(changed, 2)
    assert await webhooks.replace(changed, 1)
    assert await stored(webhooks) == replace(changed, revision=2)
    assert not await webhooks.replace(changed, 1)


async def test_of_concurrent_replacements_one_wins(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    rivals = [replace(webhook(), description=str(n)) for n in range(10)]
    won = await asyncio.gather(*(webhooks.replace(rival, 1) for rival in rivals))
    assert won.count(True) == 1
    assert (await stored(webhooks)).description == rivals[won.index(True)].description


async def test_replacing_what_is_gone_is_refused(webhooks: WebhookStore) -> None:
    assert not await webhooks.replace(webhook(), 1)
    assert await webhooks.get("wh_1") is None


async def test_delete_removes_once(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    assert await webhooks.delete("wh_1")
    assert not await webhooks.delete("wh_1")
    assert await candidates(webhooks, "alice") == []


@pytest.mark.parametrize("limit", [1, 2, 5, 6])
async def test_pages_show_an_owners_webhooks_once_oldest_first(
    webhooks: WebhookStore, limit: int
) -> None:
    for number in range(5):
        await webhooks.add(webhook(number, created_at=NOW + number // 2))
    await webhooks.add(webhook(9, owner="bob"))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await webhooks.list(WebhookQuery(owner="alice", cursor=cursor, limit=limit))
        seen += [subscription.id for subscription in page]
        if cursor is None:
            break
    assert seen == [f"wh_{number}" for number in range(5)]


async def test_list_of_all_owners(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook(2, owner="bob"))
    await webhooks.add(webhook(1))
    page, cursor = await webhooks.list(WebhookQuery(limit=10))
    assert ([subscription.id for subscription in page], cursor) == (["wh_1", "wh_2"], None)


async def test_list_shows_a_jobs_callbacks_only_when_it_is_named(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook(1))
    await webhooks.add(webhook(2, job_id="job-1"))
    await webhooks.add(webhook(3, job_id="job-1", owner="bob"))
    await webhooks.add(webhook(4, job_id="job-2"))
    found = {}
    for name, query in {
        "general": WebhookQuery(owner="alice"),
        "of_job": WebhookQuery(owner="alice", job_id="job-1"),
        "of_job_and_any": WebhookQuery(job_id="job-1"),
    }.items():
        page, _ = await webhooks.list(query)
        found[name] = [each.id for each in page]
    assert found == {"general": ["wh_1"], "of_job": ["wh_2"], "of_job_and_any": ["wh_2", "wh_3"]}


@pytest.mark.parametrize("owner", ["alice", None])
async def test_list_filters_by_status(webhooks: WebhookStore, owner: str | None) -> None:
    await webhooks.add(webhook(1, status=WebhookStatus.PAUSED))
    await webhooks.add(webhook(2))
    page, _ = await webhooks.list(WebhookQuery(owner=owner, status=WebhookStatus.PAUSED))
    assert [each.id for each in page] == ["wh_1"]


async def test_malformed_cursor_is_an_invalid_request(webhooks: WebhookStore) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await webhooks.list(WebhookQuery(owner="alice", cursor="nonsense"))


async def test_candidates_are_the_owners_the_jobs_and_those_of_every_owner(
    webhooks: WebhookStore,
) -> None:
    await webhooks.add(webhook(1))
    await webhooks.add(webhook(2, owner="bob"))
    await webhooks.add(webhook(3, owner="root", all_owners=True))
    await webhooks.add(webhook(4, job_id="job-1"))
    await webhooks.add(webhook(5, job_id="job-2"))
    await webhooks.add(webhook(6, owner="bob", job_id="job-1"))
    await webhooks.add(webhook(7, owner="root", job_id="job-1", all_owners=True))
    assert await candidates(webhooks, "alice") == ["wh_1", "wh_3", "wh_4", "wh_7"]
    assert await candidates(webhooks, "root", "job-9") == ["wh_3"]
    assert await candidates(webhooks, "nobody", "job-9") == ["wh_3"]


@pytest.mark.parametrize("status", [WebhookStatus.PAUSED, WebhookStatus.DISABLED])
async def test_inactive_webhooks_are_no_candidates(
    webhooks: WebhookStore, status: WebhookStatus
) -> None:
    await webhooks.add(webhook(1, status=status))
    await webhooks.add(webhook(2, status=status, job_id="job-1"))
    await webhooks.add(webhook(3, status=status, owner="root", all_owners=True))
    assert await candidates(webhooks, "alice") == []


async def test_count_leaves_per_job_webhooks_out(webhooks: WebhookStore) -> None:
    assert await webhooks.count("alice") == 0
    await webhooks.add(webhook(1))
    await webhooks.add(webhook(2, status=WebhookStatus.DISABLED))
    await webhooks.add(webhook(3, job_id="job-1"))
    await webhooks.add(webhook(4, owner="bob"))
    assert await webhooks.count("alice") == 2


async def test_failures_add_up_and_a_success_resets_them(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    await asyncio.gather(*(webhooks.note_outcome("wh_1", False, NOW + n) for n in range(5)))
    assert (await stored(webhooks)).consecutive_failures == 5
    assert (await stored(webhooks)).last_success_at is None
    await webhooks.note_outcome("wh_1", True, NOW + 7)
    after = await stored(webhooks)
    assert (after.consecutive_failures, after.last_success_at) == (0, NOW + 7)


async def test_outcome_does_not_disturb_a_replacement_under_way(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    await webhooks.note_outcome("wh_1", True, NOW)
    assert await webhooks.replace(webhook(), 1)


async def test_replacement_keeps_the_outcomes_noted_meanwhile(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    read = await stored(webhooks)
    await webhooks.note_outcome("wh_1", True, NOW + 1)
    await webhooks.note_outcome("wh_1", False, NOW + 2, exhausted=True)
    assert await webhooks.replace(replace(read, url="https://new.example/"), read.revision)
    after = await stored(webhooks)
    assert after.url == "https://new.example/"
    assert (after.consecutive_failures, after.last_success_at) == (1, NOW + 1)
    assert (after.failing_since, after.exhausted_count) == (NOW + 2, 1)


async def test_failures_are_dated_from_the_first_after_a_success(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    first = await webhooks.note_outcome("wh_1", False, NOW + 1)
    second = await webhooks.note_outcome("wh_1", False, NOW + 2, exhausted=True)
    success = await webhooks.note_outcome("wh_1", True, NOW + 3)
    third = await webhooks.note_outcome("wh_1", False, NOW + 4, exhausted=True)
    noted = [
        (each.failing_since, each.exhausted_count)
        for each in (first, second, success, third)
        if each is not None
    ]
    assert noted == [(NOW + 1, 0), (NOW + 1, 1), (None, 0), (NOW + 4, 1)]
    assert third == await stored(webhooks)


async def test_outcome_of_a_deleted_webhook_is_ignored(webhooks: WebhookStore) -> None:
    assert await webhooks.note_outcome("wh_1", False, NOW) is None
    assert await webhooks.get("wh_1") is None


async def test_disable_says_why_once_and_outdates_replacements(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    assert await webhooks.disable("wh_1", "410 Gone", NOW + 5)
    assert not await webhooks.disable("wh_1", "again", NOW + 6)
    after = await stored(webhooks)
    assert after.status is WebhookStatus.DISABLED
    assert after.disabled_reason == "410 Gone"
    assert after.updated_at == NOW + 5
    assert not await webhooks.replace(webhook(), 1)


async def test_disabled_webhook_can_be_made_active_again(webhooks: WebhookStore) -> None:
    await webhooks.add(webhook())
    await webhooks.note_outcome("wh_1", False, NOW, exhausted=True)
    await webhooks.disable("wh_1", "failing", NOW)
    assert await webhooks.replace(webhook(), (await stored(webhooks)).revision)
    after = await stored(webhooks)
    assert (after.status, after.consecutive_failures) == (WebhookStatus.ACTIVE, 0)
    assert (after.failing_since, after.exhausted_count) == (None, 0)
    assert await candidates(webhooks, "alice") == ["wh_1"]


async def test_prune_deletes_callbacks_of_jobs_that_ended_before_or_never_were(
    stores: Stores,
) -> None:
    ended, late, running = (new_job(f"job-{n}") for n in (1, 2, 3))
    for begun in (ended, late, running):
        await stores.jobs.record(begun, (), ())
    for begun, at in ((ended, NOW + 5), (late, NOW + 50)):
        stored_job = await stores.jobs.get(begun.job.id)
        assert stored_job is not None
        await stores.jobs.record(next_change(stored_job, at, state=State.COMPLETED), (), ())
    for number, job_id in enumerate(("job-1", "job-2", "job-3", "job-of-nobody", None)):
        await stores.webhooks.add(webhook(number, job_id=job_id, created_at=NOW))
    await stores.webhooks.add(webhook(9, job_id="job-to-come", created_at=NOW + 20))
    assert await stores.webhooks.prune(NOW + 10, NOW + 60) == 2
    left = [n for n in (0, 1, 2, 3, 4, 9) if await stores.webhooks.get(f"wh_{n}")]
    assert left == [1, 2, 4, 9]
    entries, _ = await stores.audit.list(AuditQuery(action="webhook.expired"))
    assert sorted(entry.webhook_id for entry in entries) == ["wh_0", "wh_3"]
