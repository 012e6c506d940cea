"""Who is told of a change: the right webhooks, each on its own, and Convex once a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.core.error import StoreUnavailable
from gateway.core.event import envelope, serialize
from gateway.core.job import EventType, Job, JobChange, JobEvent, Observation, State
from gateway.core.outbox import Message
from gateway.core.transition import begin
from gateway.core.webhook import Webhook, WebhookStatus
from gateway.delivery import subscription
from gateway.delivery.subscription import (
    ConvexSubscription,
    WebhookPublisher,
    WebhookSubscription,
)
from gateway.settings.delivery import ConvexFunctions
from gateway.telemetry.metric import Metrics
from tests.support.delivery import MemoryOutbox, MemoryWebhooks, make_webhook

AT = 1_767_225_600.0
JOB = Job(
    id="j1",
    incarnation="01K",
    owner="acme",
    upstream="u1",
    state=State.RUNNING,
    created_at=AT,
    observed_at=AT,
    sequence=2,
    subject="v1",
    stage="Transcribing",
    percentage=42.0,
    request_id="req-1",
    traceparent="00-trace",
)
LEGACY = ConvexFunctions(
    update_status="video:updateStatusByTwitchId", update_urls="video:updateUrls"
)


def change_of(job: Job, *types: EventType, before: Job | None = JOB) -> JobChange:
    """A change to `job` with these events, the last of which has the job's sequence."""
    first = job.sequence - len(types) + 1
    state = before.state if before else None
    events = tuple(JobEvent(kind, first + n, AT + n, state) for n, kind in enumerate(types))
    return JobChange(before, job, events)


def envelopes_of(change: JobChange) -> list[Mapping[str, Any]]:
    return [envelope(change.job, event, None) for event in change.events]


async def told(change: JobChange, *webhooks: Webhook) -> Sequence[Message]:
    subscriber = WebhookSubscription(MemoryWebhooks(*webhooks), Metrics())
    return await subscriber.messages(change, envelopes_of(change))


async def convex_told(
    change: JobChange, functions: ConvexFunctions | None = None
) -> Sequence[Message]:
    subscriber = ConvexSubscription(functions or ConvexFunctions())
    return await subscriber.messages(change, envelopes_of(change))


async def test_each_event_makes_one_message_for_each_webhook() -> None:
    change = change_of(JOB, EventType.STAGE_CHANGED, EventType.PROGRESS)
    messages = await told(change, make_webhook(id="wh_1"), make_webhook(id="wh_2"))

    assert [(each.kind, each.destination) for each in messages] == [
        ("job.stage_changed", "wh_1"),
        ("job.stage_changed", "wh_2"),
        ("job.progress", "wh_1"),
        ("job.progress", "wh_2"),
    ]
    assert len({each.id for each in messages}) == 4
    assert all(each.id.startswith("dlv_") for each in messages)
    first = messages[0]
    document = envelopes_of(change)[0]
    assert (first.sink, first.event_id, first.body) == (
        "webhook",
        document["id"],
        serialize(document),
    )
    assert (first.job_id, first.sequence, first.created_at, first.due_at) == ("j1", 1, AT, AT)
    assert (first.request_id, first.traceparent) == ("req-1", "00-trace")


async def test_messages_made_again_after_a_crash_have_the_same_ids() -> None:
    change = change_of(JOB, EventType.PROGRESS)
    assert await told(change, make_webhook()) == await told(change, make_webhook())
    assert await convex_told(change) == await convex_told(change)


async def test_change_without_events_tells_nobody() -> None:
    change = change_of(JOB)
    assert await told(change, make_webhook()) == ()
    assert await convex_told(change) == ()


@pytest.mark.parametrize(
    ("kind", "replaceable", "supersedes"),
    [
        (EventType.STARTED, False, False),
        (EventType.STAGE_CHANGED, False, False),
        (EventType.PROGRESS, True, True),
        (EventType.COMPLETED, False, True),
        (EventType.FAILED, False, True),
        (EventType.CANCELLED, False, True),
    ],
)
async def test_progress_gives_way_to_newer_progress_and_to_the_end(
    kind: EventType, *, replaceable: bool, supersedes: bool
) -> None:
    (message,) = await told(change_of(JOB, kind), make_webhook())
    assert (message.replaceable, message.supersedes) == (replaceable, supersedes)
    assert not message.strict_order


@pytest.mark.parametrize(
    "fields",
    [
        {"owner": "other"},
        {"job_id": "j2"},
        {"status": WebhookStatus.PAUSED},
        {"status": WebhookStatus.DISABLED},
        {"events": ("job.completed",)},
        {"filter": "data.progress > `50`"},
        {"filter": "data.nothing"},
    ],
)
async def test_webhook_that_does_not_want_an_event_gets_none(fields: dict[str, Any]) -> None:
    assert await told(change_of(JOB, EventType.PROGRESS), make_webhook(**fields)) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"owner": "other", "all_owners": True},
        {"job_id": "j1"},
        {"events": ("job.completed", "job.progress")},
        {"events": ("job.*",)},
        {"filter": "data.progress > `40` && data.stage == 'Transcribing'"},
    ],
)
async def test_webhook_that_wants_an_event_gets_it(fields: dict[str, Any]) -> None:
    assert len(await told(change_of(JOB, EventType.PROGRESS), make_webhook(**fields))) == 1


async def test_fields_cut_the_data_of_their_webhook_alone() -> None:
    change = change_of(JOB, EventType.PROGRESS)
    whole, cut = await told(
        change, make_webhook(id="wh_1"), make_webhook(id="wh_2", fields=("job_id", "progress"))
    )
    assert whole.body == serialize(envelopes_of(change)[0])
    document = orjson.loads(cut.body)
    assert document["data"] == {"job_id": "j1", "progress": 42.0}
    assert document["id"] == orjson.loads(whole.body)["id"]


async def test_body_is_serialised_once_for_all_that_want_it_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[object] = []

    def counting(document: object) -> bytes:
        calls.append(document)
        return serialize(document)

    monkeypatch.setattr(subscription, "serialize", counting)
    webhooks = [make_webhook(id=f"wh_{number}") for number in range(50)]
    messages = await told(change_of(JOB, EventType.PROGRESS), *webhooks)
    assert len(calls) == 1
    assert len({id(each.body) for each in messages}) == 1


async def test_failing_filter_is_its_own_webhooks_loss_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def passes(webhook: Webhook, _envelope: Mapping[str, Any]) -> bool:
        if webhook.id == "wh_bad":
            raise RecursionError("too deep")
        return True

    monkeypatch.setattr(subscription, "passes", passes)
    metrics, change = Metrics(), change_of(JOB, EventType.PROGRESS)
    store = MemoryWebhooks(make_webhook(id="wh_bad"), make_webhook(id="wh_good"))
    messages = await WebhookSubscription(store, metrics).messages(change, envelopes_of(change))
    assert [each.destination for each in messages] == ["wh_good"]
    counted = metrics.registry.get_sample_value("gateway_webhook_filter_errors_total")
    assert counted == 1


async def test_filter_that_cannot_be_evaluated_does_not_pass() -> None:
    change = change_of(JOB, EventType.PROGRESS)
    broken = [
        make_webhook(id=f"wh_{number}", filter=text)
        for number, text in enumerate(["starts_with(data.error, 'a')", "][", "nothing()"])
    ]
    messages = await told(change, *broken, make_webhook(id="wh_good"))
    assert [each.destination for each in messages] == ["wh_good"]


async def test_store_away_is_passed_on_so_that_the_change_is_recorded_later() -> None:
    store = MemoryWebhooks()
    store.away = True
    change = change_of(JOB, EventType.PROGRESS)
    with pytest.raises(StoreUnavailable):
        await WebhookSubscription(store, Metrics()).messages(change, envelopes_of(change))


async def test_convex_is_told_once_a_change_with_the_state_after_all_its_events() -> None:
    change = change_of(JOB, EventType.STAGE_CHANGED, EventType.PROGRESS)
    (message,) = await convex_told(change)
    assert (message.sink, message.destination, message.kind) == (
        "convex",
        "convex",
        "update_progress",
    )
    assert message.event_id == envelopes_of(change)[-1]["id"]
    assert (message.strict_order, message.replaceable, message.supersedes) == (True, True, True)
    arguments = orjson.loads(message.body)
    assert (arguments["jobId"], arguments["incarnation"], arguments["sequence"]) == ("j1", "01K", 2)
    assert (arguments["currentStage"], arguments["progressPercentage"]) == ("Transcribing", 42.0)


async def test_end_of_a_job_is_never_replaced_and_brings_its_analytics_once() -> None:
    ended = replace(JOB, state=State.COMPLETED, finished_at=AT + 60, sequence=3)
    update, analytics = await convex_told(change_of(ended, EventType.COMPLETED))
    assert [update.kind, analytics.kind] == ["update_progress", "track_analytics"]
    assert (update.replaceable, update.supersedes) == (False, True)
    assert (analytics.replaceable, analytics.supersedes) == (False, False)
    assert update.id != analytics.id
    assert update.strict_order
    assert analytics.strict_order


async def test_function_without_a_path_is_not_called() -> None:
    ended = replace(JOB, state=State.FAILED, finished_at=AT)
    change = change_of(ended, EventType.FAILED)
    none = ConvexFunctions(update_progress=None, track_analytics=None)
    assert await convex_told(change, none) == []
    assert [
        each.kind for each in await convex_told(change, ConvexFunctions(track_analytics=None))
    ] == ["update_progress"]


async def test_web_apps_own_functions_hear_of_states_and_urls_when_configured() -> None:
    born = begin(replace(JOB, state=State.QUEUED), Observation("j1", AT, state=State.QUEUED), AT)
    ended = replace(
        JOB,
        state=State.COMPLETED,
        results={"video_url": "https://v", "other_url": "https://o", "audio_url": None},
    )
    first, last = [
        [(each.kind, orjson.loads(each.body)) for each in await convex_told(change, LEGACY)][1:]
        for change in (born, change_of(ended, EventType.COMPLETED))
    ]
    assert first == [("update_status", {"twitchId": "v1", "status": "queued"})]
    assert last[:2] == [
        ("update_status", {"twitchId": "v1", "status": "completed"}),
        ("update_urls", {"twitchId": "v1", "urls": {"video_url": "https://v"}}),
    ]
    assert [kind for kind, _ in last] == ["update_status", "update_urls", "track_analytics"]


async def test_calls_of_a_change_are_ordered_and_come_after_those_of_the_one_before() -> None:
    ended = replace(JOB, state=State.COMPLETED, results={"video_url": "https://v"}, sequence=3)
    before = await convex_told(change_of(JOB, EventType.PROGRESS), LEGACY)
    after = await convex_told(change_of(ended, EventType.COMPLETED), LEGACY)
    sequences = [message.sequence for message in [*before, *after]]
    assert sequences == sorted(set(sequences))
    assert len(sequences) == 6


async def test_update_takes_the_place_of_a_status_that_waits_and_tells_it_anew() -> None:
    """Else the status would go first, to a video that the update has yet to make."""
    update, status = await convex_told(change_of(JOB, EventType.PROGRESS), LEGACY)
    assert (update.kind, update.supersedes) == ("update_progress", True)
    assert (status.kind, status.replaceable) == ("update_status", True)
    # It must not take the update's place, whose sequence is lower.
    assert not status.supersedes


async def test_status_alone_is_told_when_it_changes() -> None:
    alone = LEGACY.model_copy(update={"update_progress": None})
    assert await convex_told(change_of(JOB, EventType.PROGRESS), alone) == []
    ended = replace(JOB, state=State.COMPLETED)
    status, *_ = await convex_told(change_of(ended, EventType.COMPLETED), alone)
    assert (status.kind, status.supersedes, status.replaceable) == ("update_status", True, False)


async def test_web_apps_own_functions_need_a_video() -> None:
    ended = replace(JOB, state=State.COMPLETED, subject=None, results={"video_url": "https://v"})
    messages = await convex_told(change_of(ended, EventType.COMPLETED), LEGACY)
    assert [each.kind for each in messages] == ["update_progress", "track_analytics"]


async def test_changed_webhook_is_copied_to_convex_without_secrets() -> None:
    outbox, woken = MemoryOutbox(), []
    publish = WebhookPublisher(
        ConvexFunctions(), outbox, now=lambda: AT, wake=lambda: woken.append(True)
    )
    webhook = make_webhook(revision=3, headers={"Authorization": "Bearer hidden"})
    await publish(webhook, False)
    await publish(webhook, True)

    stored, deleted = (entry.message for entry in outbox.entries.values())
    assert (stored.kind, stored.job_id, stored.sequence) == ("store_webhook_config", "wh_1", 3)
    assert (deleted.sequence, orjson.loads(deleted.body)["deleted"]) == (4, True)
    assert stored.replaceable
    assert deleted.supersedes
    assert woken == [True, True]
    for message in (stored, deleted):
        assert webhook.secret.encode() not in message.body
        assert b"hidden" not in message.body


async def test_webhooks_are_copied_nowhere_without_a_function() -> None:
    outbox = MemoryOutbox()
    functions = ConvexFunctions(store_webhook_config=None)
    await WebhookPublisher(functions, outbox, now=lambda: AT, wake=lambda: None)(
        make_webhook(), False
    )
    assert outbox.entries == {}
