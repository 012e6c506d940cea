"""Webhooks as their owners and receivers meet them: managed, delivered, retried, signed, logged."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from typing import Any

import pytest
import standardwebhooks

from gateway.core.signature import secret_key
from tests.acceptance.conftest import Launch
from tests.support.receiver import Answer, Receiver, Reply
from tests.support.system import (
    KEY,
    OTHER_KEY,
    READ_KEY,
    SECRET_KEY,
    AnalysisApi,
    GatewayProcess,
    eventually,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/api/v1/webhooks"
# The second pause is a whole second, so that a third attempt must carry another timestamp.
SETTINGS: dict[str, Any] = {"webhooks": {"retry_delays": ["50ms", "1s", "50ms"]}}
UNKNOWN = "wh_01ARZ3NDEKTSV4RRFFQ69G5FAV"
JOB_EVENTS = {"job.started", "job.stage_changed", "job.progress", "job.completed"}


def pointers(problem: Any) -> set[str]:
    return {error["pointer"] for error in problem["errors"]}


async def wait_for_events(receiver: Receiver, path: str, *events: str) -> None:
    """Return once a path has got these events, among others."""
    await receiver.wait_until(lambda: {r.event for r in receiver.at(path)} >= set(events))


# --- registration and management ---------------------------------------------------------------


async def test_webhook_is_created_read_replaced_changed_and_deleted(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    created = await gateway.request("POST", PATH, {"url": receiver.url, "events": ["job.failed"]})
    webhook = created.document
    one = f"{PATH}/{webhook['id']}"

    assert created.status == 201
    assert created.headers["Location"] == one
    assert webhook["secret"].startswith("whsec_")
    assert len(secret_key(webhook["secret"])) == 32

    read = (await gateway.request("GET", one)).document
    listed = (await gateway.request("GET", PATH)).document
    assert read == {k: v for k, v in webhook.items() if k != "secret"}
    assert listed == {"webhooks": [read], "next_cursor": None}

    replacement = {"url": receiver.url_of("/new"), "description": "replaced"}
    replaced = await gateway.request("PUT", one, replacement)
    assert replaced.status == 200
    assert replaced.document == read | replacement | {"events": ["job.*"]}

    changed = await gateway.request("PATCH", one, {"status": "paused", "description": None})
    assert changed.status == 200
    assert changed.document == replaced.document | {"status": "paused", "description": None}
    assert (await gateway.request("GET", one)).document == changed.document

    deleted = await gateway.request("DELETE", one)
    assert (deleted.status, deleted.body) == (204, b"")
    assert (await gateway.request("GET", one)).status == 404
    assert (await gateway.request("GET", PATH)).document["webhooks"] == []


async def test_list_is_paged_without_loss_or_repetition(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    made = {(await gateway.register(receiver.url_of(f"/{n}")))["id"] for n in range(7)}

    seen: list[str] = []
    query = "?limit=3"
    while query:
        page = (await gateway.request("GET", PATH + query)).document
        assert len(page["webhooks"]) <= 3
        seen += [webhook["id"] for webhook in page["webhooks"]]
        query = f"?limit=3&cursor={page['next_cursor']}" if page["next_cursor"] else ""

    assert len(seen) == len(made) == 7
    assert set(seen) == made


async def test_test_delivery_reaches_the_receiver_and_the_log(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    webhook = await gateway.register(receiver.url)

    answer = await gateway.request("POST", f"{PATH}/{webhook['id']}/test")
    (request,) = await receiver.wait_for(1)

    assert answer.status == 202
    assert (request.event, request.id) == ("webhook.test", answer.document["event_id"])
    assert request.verify(webhook["secret"]) == request.envelope

    async def logged() -> bool:
        log = await gateway.deliveries(webhook["id"])
        return [line["status"] for line in log] == ["succeeded"]

    await eventually("the test is in the log", logged)
    (line,) = await gateway.deliveries(webhook["id"])
    assert line["id"] == answer.document["delivery_id"]
    assert [attempt["status_code"] for attempt in line["attempts"]] == [204]


async def test_rotation_signs_with_both_secrets_during_the_overlap_and_then_with_one(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    webhook = await gateway.register(receiver.url)
    one = f"{PATH}/{webhook['id']}"
    first = webhook["secret"]

    rotated = await gateway.request("POST", f"{one}/rotate", {"overlap_seconds": 3600})
    second = rotated.document["secret"]
    await gateway.request("POST", f"{one}/test")
    (overlapping,) = await receiver.wait_for(1)

    assert rotated.status == 200
    assert second != first
    assert overlapping.verify(first) == overlapping.verify(second) == overlapping.envelope

    third = (await gateway.request("POST", f"{one}/rotate", {"overlap_seconds": 0})).document
    await gateway.request("POST", f"{one}/test")
    await receiver.wait_for(2)
    alone = receiver.requests[1]

    assert alone.verify(third["secret"]) == alone.envelope
    for old in (first, second):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            alone.verify(old)


async def test_log_is_filtered_by_status_event_and_job(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    webhook = await gateway.register(receiver.url, ["job.started", "job.completed"])
    first, second = await gateway.create(), await gateway.create()
    await receiver.wait_for(4)

    async def settled() -> bool:
        return len(await gateway.deliveries(webhook["id"], "&status=succeeded")) == 4

    await eventually("four deliveries are settled", settled)
    by_event = await gateway.deliveries(webhook["id"], "&event=job.completed")
    by_job = await gateway.deliveries(webhook["id"], f"&job_id={first}")

    assert {line["job_id"] for line in by_event} == {first, second}
    assert {line["event"] for line in by_event} == {"job.completed"}
    assert sorted(line["event"] for line in by_job) == ["job.completed", "job.started"]
    assert await gateway.deliveries(webhook["id"], "&status=exhausted") == []
    refused = await gateway.request("GET", f"{PATH}/{webhook['id']}/logs?status=lost")
    assert refused.status in (400, 422)


# --- delivery and retry ------------------------------------------------------------------------


async def test_every_event_of_a_job_arrives_in_order_and_as_it_was_recorded(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    await gateway.register(receiver.url)
    job_id = await gateway.create()
    timeline = await gateway.finish(job_id)
    await wait_for_events(receiver, "/hook", "job.completed")

    recorded = {event["id"]: event for event in timeline}
    sequences = [request.envelope["sequence"] for request in receiver.requests]
    assert sequences == sorted(set(sequences))
    for request in receiver.requests:
        assert request.envelope == recorded[request.id]
        assert request.event == request.envelope["type"]
    # Progress that waits may be replaced by what came after it; nothing else may be missing.
    missing = recorded.keys() - {request.id for request in receiver.requests}
    assert {recorded[event_id]["type"] for event_id in missing} <= {"job.progress"}
    assert {event["type"] for event in timeline} == JOB_EVENTS


async def test_failed_delivery_comes_again_with_its_id_and_body_and_a_new_timestamp(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    webhook = await gateway.register(receiver.url, ["job.completed"])
    receiver.fail(2)
    job_id = await gateway.create()
    first, second, third = await receiver.wait_for(3)

    assert [first.attempt, second.attempt, third.attempt] == [1, 2, 3]
    assert first.id == second.id == third.id
    assert first.body == second.body == third.body
    stamps = [int(request.headers["webhook-timestamp"]) for request in (first, second, third)]
    assert stamps[0] <= stamps[1] < stamps[2]
    for request in (first, second, third):
        assert request.verify(webhook["secret"])["data"]["job_id"] == job_id

    async def settled() -> bool:
        (line,) = await gateway.deliveries(webhook["id"])
        return bool(line["status"] == "succeeded")

    await eventually("the delivery is settled", settled)
    (line,) = await gateway.deliveries(webhook["id"])
    assert [attempt["status_code"] for attempt in line["attempts"]] == [500, 500, 204]
    assert [attempt["error_kind"] for attempt in line["attempts"]] == ["http_status"] * 2 + [None]


async def test_delivery_that_never_succeeds_ends_exhausted_after_its_retries(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    webhook = await gateway.register(receiver.url, ["job.completed"], max_retries=2)
    receiver.always(Reply(503, body=b"maintenance"))
    await gateway.create()

    async def exhausted() -> bool:
        log = await gateway.deliveries(webhook["id"], "&status=exhausted")
        return len(log) == 1

    await eventually("the delivery is given up", exhausted)
    (line,) = await gateway.deliveries(webhook["id"])
    assert line["attempt_count"] == len(line["attempts"]) == len(receiver.requests) == 3
    assert {attempt["response_excerpt"] for attempt in line["attempts"]} == {"maintenance"}
    assert line["next_attempt_at"] is None
    webhook = (await gateway.request("GET", f"{PATH}/{webhook['id']}")).document
    assert webhook["consecutive_failures"] == 3
    assert webhook["status"] == "active"


async def test_receiver_that_is_gone_disables_its_webhook_and_hears_no_more(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    webhook = await gateway.register(receiver.url, ["job.started", "job.completed"])
    receiver.always(Reply(410))
    await gateway.finish(await gateway.create())

    async def disabled() -> bool:
        read = await gateway.request("GET", f"{PATH}/{webhook['id']}")
        return bool(read.document["status"] == "disabled")

    await eventually("the webhook is disabled", disabled)
    heard = len(receiver.requests)
    await gateway.finish(await gateway.create())

    assert len(receiver.requests) == heard
    assert "410" in (await gateway.request("GET", f"{PATH}/{webhook['id']}")).document[
        "disabled_reason"
    ]  # fmt: skip


async def test_failing_receiver_delays_no_other(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    broken = await gateway.register(receiver.url_of("/broken"), ["job.completed"])
    await gateway.register(receiver.url_of("/sound"), ["job.completed"])
    receiver.always(Reply(500), path="/broken")
    job_id = await gateway.create()
    await wait_for_events(receiver, "/sound", "job.completed")

    (sound,) = receiver.at("/sound")
    assert sound.envelope["data"]["job_id"] == job_id

    async def exhausted() -> bool:
        return len(await gateway.deliveries(broken["id"], "&status=exhausted")) == 1

    await eventually("the broken one is given up", exhausted)
    assert len(receiver.at("/sound")) == 1


# --- what a creation asks for ------------------------------------------------------------------


async def test_callback_url_webhook_urls_and_the_header_each_get_their_job_alone(
    gateway: GatewayProcess, upstream: AnalysisApi, receiver: Receiver
) -> None:
    answer = await gateway.request(
        "POST",
        "/api/v1/analysis",
        {
            "url": "https://www.twitch.tv/videos/2434635255",
            "callback_url": receiver.url_of("/callback"),
            "webhook_urls": [receiver.url_of("/first"), receiver.url_of("/second")],
        },
        headers={"X-Webhook-Url": receiver.url_of("/header")},
    )
    assert answer.status == 200
    job_id = answer.document["job_id"]
    await gateway.finish(await gateway.create())  # another job, of nobody's concern
    paths = ("/callback", "/first", "/second", "/header")
    for path in paths:
        await wait_for_events(receiver, path, "job.started", "job.completed")

    assert {request.path for request in receiver.requests} == set(paths)
    assert {request.envelope["data"]["job_id"] for request in receiver.requests} == {job_id}
    for request in receiver.requests:
        assert request.verify(SECRET_KEY) == request.envelope
    creations = [r for r in (await upstream.stats())["recent"] if r["method"] == "POST"]
    names = {name for request in creations for name, _ in request["headers"]}
    assert "x-webhook-url" not in names


async def test_webhook_events_of_a_creation_limit_its_callbacks(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    job_id = await gateway.create(
        webhook_urls=[receiver.url], webhook_events=["job.completed", "job.failed"]
    )
    await gateway.finish(job_id)
    await receiver.wait_for(1)

    assert receiver.events == ["job.completed"]


async def test_bad_callback_is_refused_before_a_job_exists(
    gateway: GatewayProcess, upstream: AnalysisApi
) -> None:
    before = (await upstream.asked()).get("create", 0)
    body = {
        "url": "https://www.twitch.tv/videos/2434635255",
        "callback_url": "http://169.254.169.254/latest/meta-data",
        "webhook_urls": ["http://10.0.0.1/hook"],
        "webhook_events": ["job.finished"],
    }

    answer = await gateway.request("POST", "/api/v1/analysis", body)

    assert answer.status == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    named = pointers(answer.document)
    assert {"#/callback_url", "#/webhook_urls/0"} <= named
    assert any(pointer.startswith("#/webhook_events") for pointer in named)
    assert (await upstream.asked()).get("create", 0) == before


# --- signatures --------------------------------------------------------------------------------


async def test_standard_signature_and_the_upstreams_own_scheme_both_verify(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    webhook = await gateway.register(receiver.url, ["job.completed"])
    await gateway.create()
    (request,) = await receiver.wait_for(1)

    assert request.verify(webhook["secret"]) == request.envelope
    digest = hmac.new(secret_key(webhook["secret"]), request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-klipstream-signature"] == f"sha256={digest}"

    library = standardwebhooks.Webhook(webhook["secret"])
    tampered = request.body.replace(b"job.completed", b"job.failed")
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        library.verify(tampered, dict(request.headers))
    stranger = standardwebhooks.Webhook("whsec_" + "A" * 32)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        stranger.verify(request.body, dict(request.headers))


async def test_own_secret_and_static_headers_are_used(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    secret = "whsec_" + "c2VjcmV0" * 5
    webhook = await gateway.register(
        receiver.url, ["job.completed"], secret=secret, headers={"X-Tenant": "acme"}
    )
    await gateway.create()
    (request,) = await receiver.wait_for(1)

    assert webhook["secret"] == secret
    assert request.verify(secret) == request.envelope
    assert request.headers["X-Tenant"] == "acme"
    assert request.headers["Content-Type"] == "application/json"


# --- filters -----------------------------------------------------------------------------------


async def test_filters_are_exact(gateway: GatewayProcess, receiver: Receiver) -> None:
    await gateway.register(receiver.url_of("/completed"), ["job.completed"])
    await gateway.register(
        receiver.url_of("/stage"), ["job.stage_changed"], filter="data.stage == 'Completed'"
    )
    await gateway.register(receiver.url_of("/all"), filter="data.status == 'completed'")
    await gateway.register(
        receiver.url_of("/fields"), ["job.completed"], fields=["job_id", "status"]
    )
    await gateway.register(receiver.url_of("/failed"), ["job.failed", "job.cancelled"])
    job_id = await gateway.create()
    await gateway.finish(job_id)
    for path in ("/completed", "/all", "/fields"):
        await wait_for_events(receiver, path, "job.completed")

    counts = Counter((request.path, request.event) for request in receiver.requests)
    assert counts == {
        ("/completed", "job.completed"): 1,
        ("/all", "job.completed"): 1,
        ("/fields", "job.completed"): 1,
    }
    (fields,) = receiver.at("/fields")
    assert fields.envelope["data"] == {"job_id": job_id, "status": "completed"}


async def test_owner_hears_of_its_own_jobs_alone(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    url = receiver.url_of("/other")
    stranger = await gateway.request("POST", PATH, {"url": url}, key=OTHER_KEY)
    await gateway.register(receiver.url_of("/own"), ["job.completed"])
    await gateway.finish(await gateway.create())
    await wait_for_events(receiver, "/own", "job.completed")

    assert stranger.status == 201
    assert receiver.at("/other") == []


# --- errors and logging ------------------------------------------------------------------------


async def test_every_broken_field_is_named(gateway: GatewayProcess, receiver: Receiver) -> None:
    body = {
        "url": "http://10.1.2.3/hook",
        "events": ["job.finished"],
        "evnts": ["job.*"],
        "max_retries": "three",
        "timeout_seconds": 900,
        "filter": "data.[",
        "headers": {"Host": "elsewhere"},
        "created_at": "2026-01-01T00:00:00Z",
    }

    answer = await gateway.request("POST", PATH, body)

    assert answer.status == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    named = {pointer.split("/")[1] for pointer in pointers(answer.document)}
    assert named == set(body)
    (hint,) = [e["detail"] for e in answer.document["errors"] if e["pointer"] == "#/evnts"]
    assert "'events'" in hint
    assert (await gateway.request("GET", PATH)).document["webhooks"] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"url": "https://example.com/hook"', 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b'["https://example.com/hook"]', 422),
        (b'"https://example.com/hook"', 422),
        (b'{"url": null}', 422),
        (b"{}", 422),
        (b'{"url": "https://a.example/", "url": "https://b.example/"}', 400),
        (b'{"url": NaN}', 400),
        (b"[" * 100_000, 400),
        (b'{"url": "' + b"x" * 100_000 + b'"}', 413),
    ],
    ids=[
        "cut-off",
        "empty",
        "not-text",
        "array",
        "string",
        "null-url",
        "no-url",
        "twice",
        "nan",
        "deep",
        "huge",
    ],
)
async def test_body_that_is_no_webhook_is_refused_clearly(
    gateway: GatewayProcess, body: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await gateway.request("POST", PATH, data=body, headers=headers)

    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.document["status"] == status
    assert answer.document["detail"].endswith(".") or answer.document["errors"]
    assert answer.document["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("method", "below", "document"),
    [
        ("GET", "", None),
        ("PUT", "", {"url": "https://example.com/taken"}),
        ("PATCH", "", {"status": "paused"}),
        ("DELETE", "", None),
        ("GET", "/logs", None),
        ("POST", "/test", None),
        ("POST", "/rotate", None),
    ],
)
async def test_anothers_webhook_is_as_good_as_none(
    gateway: GatewayProcess, receiver: Receiver, method: str, below: str, document: Any
) -> None:
    webhook = await gateway.register(receiver.url)
    read = await gateway.request("GET", f"{PATH}/{webhook['id']}")

    strange = await gateway.request(
        method, f"{PATH}/{webhook['id']}{below}", document, key=OTHER_KEY
    )
    unknown = await gateway.request(method, f"{PATH}/{UNKNOWN}{below}", document, key=OTHER_KEY)

    assert strange.status == unknown.status == 404
    # The answers differ in what was asked for alone: neither tells that one of them exists.
    assert strange.body.replace(webhook["id"].encode(), UNKNOWN.encode()).replace(
        strange.headers["X-Request-ID"].encode(), b""
    ) == unknown.body.replace(unknown.headers["X-Request-ID"].encode(), b"")
    assert (await gateway.request("GET", f"{PATH}/{webhook['id']}")).document == read.document
    assert receiver.requests == []


async def test_webhooks_need_a_key_with_their_scope(gateway: GatewayProcess) -> None:
    assert (await gateway.request("GET", PATH, key=None)).status == 401
    assert (await gateway.request("GET", PATH, key=READ_KEY)).status == 403
    refused = await gateway.request("DELETE", PATH)
    assert (refused.status, set(refused.headers["Allow"].split(", "))) == (
        405,
        {"GET", "POST", "HEAD"},
    )


async def test_changes_and_attempts_are_logged_without_secrets(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    webhook = await gateway.register(receiver.url_of("/token-in-the-path"), ["job.completed"])
    rotated = await gateway.request("POST", f"{PATH}/{webhook['id']}/rotate")
    await gateway.create()
    await receiver.wait_for(1)
    await gateway.request("DELETE", f"{PATH}/{webhook['id']}")

    async def logged() -> bool:
        lines = [line for line in gateway.log.splitlines() if webhook["id"] in line]
        events = ("webhook_created", "webhook_secret_rotated", "webhook_deleted")
        return all(any(f'"{event}"' in line for line in lines) for event in events)

    await eventually("every change has its line", logged)
    audited = [line for line in gateway.log.splitlines() if '"logger":"audit"' in line]
    assert len([line for line in audited if webhook["id"] in line]) == 3
    for secret in (webhook["secret"], rotated.document["secret"], KEY, "token-in-the-path"):
        assert secret not in gateway.log


# --- load --------------------------------------------------------------------------------------


class FirstAttemptFails(Receiver):
    """Refuses every event once on `/flaky`."""

    def _next(self, path: str) -> Answer:
        return Reply(500 if path == "/flaky" and self.requests[-1].attempt == 1 else 204)


@pytest.mark.timeout(120)
async def test_hundred_jobs_and_six_webhooks_lose_and_repeat_nothing(launch: Launch) -> None:
    async with AnalysisApi(speed=10, create_seconds=0) as api, FirstAttemptFails() as receiver:
        gateway = await launch(api.url)
        paths = [f"/{number}" for number in range(5)]
        wanted = ["job.started", "job.completed"]
        for path in [*paths, "/flaky"]:
            await gateway.register(receiver.url_of(path), wanted)
        jobs = [await gateway.create() for _ in range(100)]
        expected = dict.fromkeys([(job, event) for job in jobs for event in wanted], 1)

        async def arrived() -> bool:
            return len(receiver.requests) >= 5 * 200 + 2 * 200

        await eventually("1,200 events arrive", arrived, 90)

        async def empty() -> bool:
            return (await gateway.metrics()).get("gateway_outbox_depth") == 0

        await eventually("nothing waits any more", empty)
        for path in paths:
            got = Counter((r.envelope["data"]["job_id"], r.event) for r in receiver.at(path))
            assert got == expected
        again = [r for r in receiver.at("/flaky") if r.attempt == 2]
        assert Counter((r.envelope["data"]["job_id"], r.event) for r in again) == expected
        assert len(receiver.at("/flaky")) == 400
        assert (await gateway.metrics())["gateway_jobs_completed_total"] == 100
