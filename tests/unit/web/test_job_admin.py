"""What operators see of jobs, and send again, over a real embedded store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.core.audit import OPERATOR
from gateway.core.error import Conflict, InvalidRequest, NotFound, UnprocessableContent
from gateway.core.job import State
from gateway.core.webhook import ALL_EVENTS, WebhookStatus
from gateway.delivery.replay import Replay
from gateway.store.audit import AuditQuery
from gateway.web.job_admin import JobDesk
from tests.support.store import NOW, Stores, message, new_job, next_change, timeline_of, webhook


class Woken:
    """Counts how often the dispatcher was told."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.fixture
def desk(stores: Stores, woken: Woken) -> JobDesk:
    replay = Replay(stores.outbox, stores.jobs, lambda: NOW + 500, woken)
    return JobDesk(stores.jobs, stores.webhooks, stores.outbox, stores.audit, replay)


async def add(stores: Stores, job_id: str, at: float = NOW, **fields: Any) -> None:
    change = new_job(job_id, at, **fields)
    assert await stores.jobs.record(change, timeline_of(change), ())


async def finish(stores: Stores, job_id: str) -> None:
    job = await stores.jobs.get(job_id)
    assert job is not None
    change = next_change(job, NOW + 60, state=State.COMPLETED)
    assert await stores.jobs.record(change, timeline_of(change), ())


async def ids(desk: JobDesk, query: str) -> list[str]:
    return [job["job_id"] for job in (await desk.list(query))["jobs"]]


async def test_jobs_of_every_owner_are_listed_by_owner_state_and_age(
    desk: JobDesk, stores: Stores
) -> None:
    await add(stores, "job-1", NOW, owner="alice")
    await add(stores, "job-2", NOW + 60, owner="bob")
    await add(stores, "job-3", NOW + 120, owner="bob")
    await finish(stores, "job-3")
    assert await ids(desk, "") == ["job-3", "job-2", "job-1"]
    assert await ids(desk, "owner=bob") == ["job-3", "job-2"]
    assert await ids(desk, "owner=bob&state=completed") == ["job-3"]
    assert await ids(desk, "until=2023-11-14T22:14:20Z") == ["job-1"]
    page = await desk.list("limit=1")
    assert await ids(desk, f"limit=5&cursor={page['next_cursor']}") == ["job-2", "job-1"]
    with pytest.raises(InvalidRequest, match="did you mean 'owner'"):
        await desk.list("ovner=bob")


async def test_job_is_shown_with_whose_it_is_and_where_it_runs(
    desk: JobDesk, stores: Stores
) -> None:
    await add(stores, "job-1", owner="alice", request_id="r1", lost_since=NOW)
    shown = await desk.show("job-1")
    assert shown["owner"] == "alice"
    assert shown["upstream"]
    assert shown["request_id"] == "r1"
    assert shown["lost_since"] == "2023-11-14T22:13:20.000Z"


Asking = Callable[[JobDesk], Awaitable[Any]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda desk: desk.show("job-9"),
        lambda desk: desk.events("job-9", ""),
        lambda desk: desk.deliveries("job-9"),
        lambda desk: desk.send_again("job-9", {"webhook_id": "wh_1"}, OPERATOR),
    ],
)
async def test_job_that_nobody_knows_is_not_found(desk: JobDesk, ask: Asking) -> None:
    with pytest.raises(NotFound, match="There is no job job-9"):
        await ask(desk)


async def test_events_page_as_those_of_the_owner_do(desk: JobDesk, stores: Stores) -> None:
    await add(stores, "job-1")
    await finish(stores, "job-1")
    first = await desk.events("job-1", "limit=1")
    assert [event["type"] for event in first["events"]] == ["job.started"]
    rest = await desk.events("job-1", f"after={first['next_after']}")
    assert [event["type"] for event in rest["events"]] == ["job.completed"]
    assert rest["next_after"] is None


async def test_deliveries_to_every_receiver_are_shown_those_to_a_paused_one_too(
    desk: JobDesk, stores: Stores
) -> None:
    await add(stores, "job-1", owner="alice")
    await add(stores, "job-2", owner="alice")
    for target in (
        webhook(id="wh_own", owner="alice", status=WebhookStatus.PAUSED),
        webhook(id="wh_all", owner="ops", all_owners=True),
        webhook(id="wh_call", owner="alice", job_id="job-1"),
        webhook(id="wh_other", owner="bob"),
    ):
        await stores.webhooks.add(target)
    for number, destination in enumerate(("wh_own", "wh_all", "wh_call", "convex")):
        for job_id in ("job-1", "job-2"):
            await stores.outbox.enqueue(
                [
                    message(
                        number,
                        id=f"dlv_{destination}_{job_id}",
                        destination=destination,
                        job_id=job_id,
                    )
                ]
            )
    shown = (await desk.deliveries("job-1"))["deliveries"]
    assert {each["destination"]: each["id"] for each in shown} == {
        name: f"dlv_{name}_job-1" for name in ("wh_own", "wh_all", "wh_call", "convex")
    }


class TestReplay:
    async def test_every_event_that_the_webhook_takes_goes_out_again_under_its_own_id(
        self, desk: JobDesk, stores: Stores, woken: Woken
    ) -> None:
        await add(stores, "job-1", owner="alice")
        await finish(stores, "job-1")
        await stores.webhooks.add(webhook(owner="alice", events=(ALL_EVENTS,)))
        assert await desk.send_again("job-1", {"webhook_id": "wh_1"}, OPERATOR) == {"replayed": 2}
        sent = (await desk.deliveries("job-1"))["deliveries"]
        events = (await desk.events("job-1", ""))["events"]
        assert {each["event_id"] for each in sent} == {event["id"] for event in events}
        assert woken.count == 1
        lines, _ = await stores.audit.list(AuditQuery(webhook_id="wh_1"))
        assert [line.action for line in lines] == ["webhook.recovered"]
        assert lines[0].details["job_id"] == "job-1"

    async def test_one_type_of_events_alone(self, desk: JobDesk, stores: Stores) -> None:
        await add(stores, "job-1", owner="alice")
        await finish(stores, "job-1")
        await stores.webhooks.add(webhook(owner="alice", events=(ALL_EVENTS,)))
        asked = {"webhook_id": "wh_1", "event": "job.completed"}
        assert await desk.send_again("job-1", asked, OPERATOR) == {"replayed": 1}
        (sent,) = (await desk.deliveries("job-1"))["deliveries"]
        assert sent["event"] == "job.completed"

    @pytest.mark.parametrize(
        "fields",
        [
            {"owner": "bob"},
            {"owner": "alice", "job_id": "job-2"},
            {"owner": "alice", "events": ("job.failed",)},
            {"owner": "alice", "filter": "data.status == 'failed'"},
            {"owner": "alice", "status": WebhookStatus.DISABLED},
        ],
    )
    async def test_nothing_goes_to_a_webhook_that_takes_none_of_it(
        self, desk: JobDesk, stores: Stores, woken: Woken, fields: dict[str, Any]
    ) -> None:
        await add(stores, "job-1", owner="alice")
        await stores.webhooks.add(webhook(**{"events": (ALL_EVENTS,), **fields}))
        with pytest.raises(Conflict):
            await desk.send_again("job-1", {"webhook_id": "wh_1"}, OPERATOR)
        assert not woken.count

    @pytest.mark.parametrize(
        ("asked", "pointer"),
        [
            ({}, "#/webhook_id"),
            ({"webhook_id": 7}, "#/webhook_id"),
            ({"webhook_id": "wh_1", "event": "job.done"}, "#/event"),
            ({"webhook_id": "wh_1", "evnt": "job.failed"}, "#/evnt"),
        ],
    )
    async def test_bad_request_is_told_where_and_how_to_mend_it(
        self, desk: JobDesk, asked: dict[str, Any], pointer: str
    ) -> None:
        with pytest.raises(UnprocessableContent) as caught:
            await desk.send_again("job-1", asked, OPERATOR)
        assert [each["pointer"] for each in caught.value.extra["errors"]] == [pointer]

    async def test_webhook_that_nobody_knows_is_not_found(
        self, desk: JobDesk, stores: Stores
    ) -> None:
        await add(stores, "job-1")
        with pytest.raises(NotFound, match="There is no webhook wh_9"):
            await desk.send_again("job-1", {"webhook_id": "wh_9"}, OPERATOR)
