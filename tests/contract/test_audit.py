"""What every audit log keeps: each change with its webhook, each delivery's end, and no less."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.audit import AuditEntry, Change, change_entry
from gateway.core.error import InvalidRequest
from gateway.core.outbox import DeliveryStatus
from gateway.core.retry import Dead, Delivered, RetryAt, Verdict
from gateway.store.audit import AuditLog, AuditQuery
from tests.support.store import NOW, Stores, attempt_at, message, webhook


def line(number: int, action: str = "webhook.tested", webhook_id: str = "wh_1") -> AuditEntry:
    return AuditEntry(NOW + number, action, webhook_id, "key:k1", {"n": number})


async def numbers(audit: AuditLog, query: AuditQuery) -> list[int]:
    page, _ = await audit.list(query)
    return [entry.details["n"] for entry in page]


async def actions(stores: Stores, webhook_id: str = "wh_1") -> list[str]:
    page, _ = await stores.audit.list(AuditQuery(webhook_id=webhook_id))
    return [entry.action for entry in page]


async def test_every_field_of_a_line_survives(audit: AuditLog) -> None:
    given = AuditEntry(NOW + 0.25, "webhook.changed", "wh_1", "key:k1", {"fields": ["url"], "é": 1})
    await audit.append([given])
    page, cursor = await audit.list(AuditQuery())
    assert (list(page), cursor) == ([given], None)


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
@pytest.mark.parametrize("webhook_id", [None, "wh_1"])
async def test_pages_show_every_line_once_newest_first(
    audit: AuditLog, limit: int, webhook_id: str | None
) -> None:
    await audit.append([replace(line(n), at=NOW + n // 3) for n in range(7)])
    seen: list[int] = []
    cursor = None
    while True:
        query = AuditQuery(webhook_id=webhook_id, cursor=cursor, limit=limit)
        page, cursor = await audit.list(query)
        seen += [entry.details["n"] for entry in page]
        if cursor is None:
            break
    assert seen == list(range(6, -1, -1))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (AuditQuery(webhook_id="wh_2"), [2]),
        (AuditQuery(action="webhook.*"), [3, 1, 0]),
        (AuditQuery(action="delivery.exhausted"), [2]),
        (AuditQuery(since=NOW + 1, until=NOW + 3), [2, 1]),
        (AuditQuery(webhook_id="wh_1", action="webhook.tested", since=NOW + 1), [3, 1]),
    ],
)
async def test_lines_are_filtered(audit: AuditLog, query: AuditQuery, wanted: list[int]) -> None:
    lines = [line(0, "webhook.created"), line(1), line(2, "delivery.exhausted", "wh_2"), line(3)]
    await audit.append(lines)
    assert await numbers(audit, query) == wanted


@pytest.mark.parametrize("cursor", ["nonsense", "WzEsImEiXQ", "WzEsIsK5Il0"])
async def test_malformed_cursor_is_an_invalid_request(audit: AuditLog, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await audit.list(AuditQuery(cursor=cursor))


async def test_prune_deletes_what_is_older_and_nothing_else(audit: AuditLog) -> None:
    await audit.append([line(n) for n in range(1201)])
    assert await audit.prune(NOW + 1200) == 1200
    assert await numbers(audit, AuditQuery()) == [1200]


# --- changes --------------------------------------------------------------------------------------


async def test_change_and_its_line_are_one(stores: Stores) -> None:
    store, first = stores.webhooks, webhook()
    created = change_entry(Change.CREATED, first, NOW, "key:k1")
    assert await store.add(first, created)
    assert not await store.add(first, created)
    changed = change_entry(Change.CHANGED, first, NOW + 1)
    assert await store.replace(first, 1, changed)
    assert not await store.replace(first, 1, changed)
    disabled = change_entry(Change.DISABLED, first, NOW + 2)
    assert await store.disable(first.id, "410", NOW + 2, disabled)
    assert not await store.disable(first.id, "410", NOW + 2, disabled)
    deleted = change_entry(Change.DELETED, first, NOW + 3)
    assert await store.delete(first.id, deleted)
    assert not await store.delete(first.id, deleted)
    page, _ = await stores.audit.list(AuditQuery(webhook_id=first.id))
    assert list(page) == [deleted, disabled, changed, created]


# --- deliveries -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "wanted"),
    [
        (Delivered(), ["delivery.succeeded"]),
        (Dead(DeliveryStatus.EXHAUSTED), ["delivery.exhausted"]),
        (Dead(DeliveryStatus.BLOCKED), ["delivery.blocked"]),
        (Dead(DeliveryStatus.SKIPPED), ["delivery.skipped"]),
        (RetryAt(NOW + 9), []),
    ],
)
async def test_end_of_a_delivery_is_a_line(
    stores: Stores, verdict: Verdict, wanted: list[str]
) -> None:
    await stores.outbox.enqueue([message(1)])
    (held,) = await stores.outbox.claim("webhook", 1, NOW, 60)
    assert await stores.outbox.settle(held, verdict, attempt_at(held, NOW), NOW + 1)
    assert not await stores.outbox.settle(held, verdict, attempt_at(held, NOW), NOW + 1)
    assert await actions(stores) == wanted


async def test_line_of_a_delivery_says_which_and_after_how_many_attempts(stores: Stores) -> None:
    sent = message(1)
    await stores.outbox.enqueue([sent])
    for _ in range(2):
        (held,) = await stores.outbox.claim("webhook", 1, NOW, 60)
        verdict: Verdict = Delivered() if held.item.attempt == 2 else RetryAt(NOW)
        await stores.outbox.settle(held, verdict, attempt_at(held, NOW), NOW + 1)
    page, _ = await stores.audit.list(AuditQuery())
    details = {
        "delivery_id": sent.id,
        "event_id": sent.event_id,
        "event": sent.kind,
        "job_id": sent.job_id,
        "attempts": 2,
    }
    assert list(page) == [AuditEntry(NOW + 1, "delivery.succeeded", "wh_1", "gateway", details)]


async def test_what_ends_without_an_attempt_is_a_line_too(stores: Stores) -> None:
    await stores.outbox.enqueue([message(1, replaceable=True)])
    await stores.outbox.enqueue([message(2, supersedes=True)])
    await stores.outbox.cancel("wh_1", NOW + 3)
    await stores.outbox.enqueue([message(3, status=DeliveryStatus.SKIPPED, at=NOW + 4)])
    assert await actions(stores) == [
        "delivery.skipped",
        "delivery.cancelled",
        "delivery.superseded",
    ]


async def test_deliveries_of_other_sinks_leave_no_line(stores: Stores) -> None:
    await stores.outbox.enqueue([message(1, sink="convex", destination="convex")])
    (held,) = await stores.outbox.claim("convex", 1, NOW, 60)
    await stores.outbox.settle(held, Delivered(), attempt_at(held, NOW), NOW + 1)
    assert await actions(stores, "convex") == []
