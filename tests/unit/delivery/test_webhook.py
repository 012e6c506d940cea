"""One attempt at a webhook: what is sent, what counts as success, and every way it can fail."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.address import AddressRule
from gateway.core.error import StoreUnavailable
from gateway.core.outbox import DeliveryStatus
from gateway.core.retry import Dead, ErrorKind, Outcome, decide
from gateway.core.signature import secret_key, sign, sign_body, verify_body
from gateway.core.subscription import is_reserved
from gateway.core.webhook import Webhook, WebhookStatus
from gateway.delivery.header import USER_AGENT, delivery_headers
from gateway.delivery.webhook import (
    GONE_REASON,
    RESPONSE_KEPT_BYTES,
    RESPONSE_READ_BYTES,
    WebhookSink,
)
from gateway.settings.delivery import Webhooks
from tests.support.delivery import SECRET, MemoryWebhooks, make_message, make_webhook
from tests.support.names import LOOPBACK_SPELLINGS, Names
from tests.support.receiver import Drip, Drop, Flood, Hang, Receiver, Reply

RULE = AddressRule.parse(("http", "https"), (), any_port=True, allow=("127.0.0.1/32",))
OTHER_SECRET = "whsec_" + "QUJD" * 8
FIRST = {"attempt": 1}


@asynccontextmanager
async def sending(
    store: MemoryWebhooks, settings: Webhooks | None = None, **options: Any
) -> AsyncIterator[WebhookSink]:
    rule = options.pop("rule", RULE)
    now = options.pop("now", time.time)
    sink = WebhookSink(store, settings or Webhooks(), rule, now=now, **options)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def attempt(target: Webhook, settings: Webhooks | None = None, **fields: Any) -> Outcome:
    async with sending(MemoryWebhooks(target), settings) as sink:
        return await sink.send(make_message(**(FIRST | fields)))


async def test_wire_is_standard_webhooks_with_the_upstreams_header_beside(
    receiver: Receiver,
) -> None:
    target = make_webhook(receiver.url_of("/a?b=c"), headers={"X-Tenant": "t1"})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    outcome = await attempt(
        target, body=b'{"a":"\xc3\xa5"}', request_id="req-1", traceparent=trace, attempt=3
    )

    (request,) = receiver.requests
    assert (outcome.ok, outcome.status_code, outcome.detail) == (True, 204, "")
    assert (request.method, request.path, request.body) == ("POST", "/a", b'{"a":"\xc3\xa5"}')
    assert request.verify(SECRET) == {"a": "å"}
    verify_body([secret_key(SECRET)], request.headers["x-klipstream-signature"], request.body)
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    expected = {
        "webhook-id": "evt_1",
        "x-webhook-event": "job.started",
        "x-webhook-attempt": "3",
        "content-type": "application/json",
        "content-length": "10",
        "accept-encoding": "identity",
        "user-agent": USER_AGENT,
        "x-request-id": "req-1",
        "traceparent": trace,
        "x-tenant": "t1",
    }
    assert {name: request.headers[name] for name in expected} == expected


async def test_retry_keeps_id_and_body_and_renews_the_timestamp(receiver: Receiver) -> None:
    clock = iter([1000.5, 1030.5])
    store = MemoryWebhooks(make_webhook(receiver.url))
    async with sending(store, now=lambda: next(clock)) as sink:
        await sink.send(make_message(attempt=1))
        await sink.send(make_message(attempt=2))

    first, second = receiver.requests
    assert (first.id, first.body) == (second.id, second.body)
    for request, at in ((first, 1000), (second, 1030)):
        assert request.headers["webhook-timestamp"] == str(at)
        signature = sign([secret_key(SECRET)], request.id, at, request.body)
        assert request.headers["webhook-signature"] == signature


@pytest.mark.parametrize(("now", "entries"), [(99.0, 2), (100.0, 1)])
async def test_previous_secret_signs_until_its_overlap_ends(
    receiver: Receiver, now: float, entries: int
) -> None:
    target = make_webhook(
        receiver.url, previous_secret=OTHER_SECRET, previous_secret_expires_at=100.0
    )
    async with sending(MemoryWebhooks(target), now=lambda: now) as sink:
        await sink.send(make_message(**FIRST))

    (request,) = receiver.requests
    keys = [secret_key(SECRET), secret_key(OTHER_SECRET)][:entries]
    assert request.headers["webhook-signature"] == sign(keys, "evt_1", int(now), request.body)
    assert request.headers["x-klipstream-signature"] == sign_body(keys[0], request.body)


def test_every_header_of_a_delivery_is_reserved() -> None:
    message = make_message(request_id="r", traceparent="t", **FIRST)
    headers = delivery_headers({}, message, [b"k"], 1)
    assert [name for name in headers if not is_reserved(name)] == []


def test_static_headers_never_override_reserved_ones() -> None:
    message = make_message(**FIRST)
    ours = delivery_headers({}, message, [b"k"], 1)
    forged = {name.upper(): "forged" for name in ours} | {"Host": "x", "Content-Length": "0"}
    assert delivery_headers(forged, message, [b"k"], 1) == ours
    authorized = delivery_headers({"Authorization": "Bearer x"}, message, [b"k"], 1)
    assert dict(authorized) == {**ours, "Authorization": "Bearer x"}


async def test_plain_secret_signs_with_its_bytes(receiver: Receiver) -> None:
    await attempt(make_webhook(receiver.url, secret="the old shared secret"))
    assert receiver.requests[0].verify(b"the old shared secret") == {"number": 1}


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_success(receiver: Receiver, status: int) -> None:
    receiver.always(Reply(status))
    assert (await attempt(make_webhook(receiver.url))).ok


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 409, 422, 429, 500, 502, 503])
async def test_any_other_status_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.always(Reply(status))
    outcome = await attempt(make_webhook(receiver.url))
    assert (outcome.error_kind, outcome.status_code) == (ErrorKind.HTTP_STATUS, status)
    assert outcome.detail == f"answered {status}"
    assert not outcome.permanent
    assert not outcome.gone


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    location = {"Location": "http://169.254.169.254/latest/meta-data/"}
    receiver.always(Reply(status, location))
    outcome = await attempt(make_webhook(receiver.url))
    assert (outcome.error_kind, outcome.status_code) == (ErrorKind.HTTP_STATUS, status)
    assert len(receiver.requests) == 1


async def test_retry_after_is_carried_in_both_forms(receiver: Receiver) -> None:
    date = {"Retry-After": "Thu, 01 Jan 1970 00:20:00 GMT"}
    receiver.script(Reply(429, {"Retry-After": "7"}), Reply(503, date), Reply(503))
    store = MemoryWebhooks(make_webhook(receiver.url))
    async with sending(store, now=lambda: 1000.0) as sink:
        waits = [(await sink.send(make_message(**FIRST))).retry_after_seconds for _ in range(3)]
    assert waits == [7.0, 200.0, None]


async def test_410_is_gone_and_disables_the_webhook(receiver: Receiver) -> None:
    receiver.always(Reply(410))
    published: list[tuple[Webhook, bool]] = []

    async def publish(webhook: Webhook, deleted: bool) -> None:  # noqa: FBT001 - a hook's shape
        published.append((webhook, deleted))

    store, message = MemoryWebhooks(make_webhook(receiver.url)), make_message(**FIRST)
    async with sending(store, publish=publish) as sink:
        outcome = await sink.send(message)
        await sink.settled(message, outcome)
        await sink.settled(message, outcome)  # another one that was in flight beside it
        later = await sink.send(message)

    assert outcome.gone
    stored = store.rows["wh_1"]
    assert (stored.status, stored.disabled_reason) == (WebhookStatus.DISABLED, GONE_REASON)
    ((copy, deleted),) = published
    assert (copy.status, copy.revision, deleted) == (WebhookStatus.DISABLED, 2, False)
    assert decide(await sink.schedule(message), 1, later, 0.0, 0.0) == Dead(DeliveryStatus.SKIPPED)
    assert len(receiver.requests) == 1


async def test_body_is_kept_up_to_16_kib(receiver: Receiver) -> None:
    receiver.script(Reply(200, body=b"a" * 20000), Reply(500, body=b"b" * 100))
    first = await attempt(make_webhook(receiver.url))
    second = await attempt(make_webhook(receiver.url))
    assert (first.ok, first.response_excerpt) == (True, "a" * RESPONSE_KEPT_BYTES)
    assert second.response_excerpt == "b" * 100


async def test_excerpt_of_bytes_that_are_no_text_is_text(receiver: Receiver) -> None:
    receiver.always(Reply(500, body=b"\xff\x00ok"))
    assert (await attempt(make_webhook(receiver.url))).response_excerpt == "\ufffd\x00ok"


async def test_success_with_an_endless_body_is_too_large(receiver: Receiver) -> None:
    receiver.always(Flood(RESPONSE_READ_BYTES * 64))
    outcome = await attempt(make_webhook(receiver.url))
    assert outcome.error_kind is ErrorKind.RESPONSE_TOO_LARGE
    assert (outcome.status_code, len(outcome.response_excerpt)) == (200, RESPONSE_KEPT_BYTES)
    assert not outcome.permanent


async def test_failure_with_an_endless_body_is_its_status(receiver: Receiver) -> None:
    receiver.always(Flood(RESPONSE_READ_BYTES * 64, status=500))
    outcome = await attempt(make_webhook(receiver.url))
    assert (outcome.error_kind, outcome.status_code) == (ErrorKind.HTTP_STATUS, 500)


async def test_gzip_bomb_is_not_inflated(receiver: Receiver) -> None:
    bomb = gzip.compress(b"\0" * 32 * 1024**2)
    assert len(bomb) < RESPONSE_READ_BYTES
    receiver.always(Reply(200, {"Content-Encoding": "gzip"}, bomb))
    outcome = await attempt(make_webhook(receiver.url))
    assert outcome.ok
    assert outcome.response_excerpt == bomb[:RESPONSE_KEPT_BYTES].decode("utf-8", "replace")


async def test_receiver_that_hangs_is_a_timeout(receiver: Receiver) -> None:
    receiver.always(Hang())
    outcome = await attempt(make_webhook(receiver.url), Webhooks(timeout=0.05))
    assert (outcome.error_kind, outcome.status_code) == (ErrorKind.TIMEOUT, None)
    assert outcome.detail == "no complete answer within 0.05 s"
    assert outcome.duration_seconds >= 0.05


async def test_body_that_drips_hits_the_same_deadline(receiver: Receiver) -> None:
    receiver.always(Drip(interval_seconds=0.001))
    outcome = await attempt(make_webhook(receiver.url, timeout_seconds=0.1))
    assert (outcome.error_kind, outcome.status_code) == (ErrorKind.TIMEOUT, 200)
    assert outcome.response_excerpt.startswith(".")


async def test_failure_whose_body_drips_is_its_status(receiver: Receiver) -> None:
    receiver.always(Drip(status=410, interval_seconds=0.001))
    outcome = await attempt(make_webhook(receiver.url, timeout_seconds=0.1))
    assert (outcome.error_kind, outcome.gone) == (ErrorKind.HTTP_STATUS, True)


async def test_receiver_that_hangs_up_is_a_connection_error(receiver: Receiver) -> None:
    receiver.always(Drop())
    outcome = await attempt(make_webhook(receiver.url))
    assert (outcome.error_kind, outcome.status_code) == (ErrorKind.CONNECT, None)
    assert outcome.detail


async def test_nobody_listening_is_a_connection_error() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        outcome = await attempt(make_webhook(f"http://127.0.0.1:{closed.getsockname()[1]}/"))
    assert outcome.error_kind is ErrorKind.CONNECT


async def test_plain_http_behind_https_is_a_tls_error(receiver: Receiver) -> None:
    outcome = await attempt(make_webhook(f"https://127.0.0.1:{receiver.port}/"))
    assert outcome.error_kind is ErrorKind.TLS


async def test_unknown_name_is_a_dns_error() -> None:
    store = MemoryWebhooks(make_webhook("https://nothing.example/"))
    async with sending(store, resolver=Names([])) as sink:
        outcome = await sink.send(make_message(**FIRST))
    assert outcome.error_kind is ErrorKind.DNS
    assert "nothing.example" in outcome.detail


async def test_blocked_address_is_named_and_final(receiver: Receiver) -> None:
    strict = AddressRule.parse(("http",), (), any_port=True)
    # A name, so that the URL itself is in order: what it resolves to is not.
    store = MemoryWebhooks(make_webhook(f"http://receiver.example:{receiver.port}/"))
    async with sending(store, rule=strict, resolver=Names(["127.0.0.1"])) as sink:
        outcome = await sink.send(make_message(**FIRST))
    assert outcome.error_kind is ErrorKind.BLOCKED_ADDRESS
    assert outcome.detail == "127.0.0.1 is in 127.0.0.0/8 (loopback)"
    assert receiver.requests == []


@pytest.mark.parametrize("host", [*LOOPBACK_SPELLINGS, "127.0.0.1", "a b"])
async def test_url_that_breaks_the_rule_by_now_is_blocked(receiver: Receiver, host: str) -> None:
    store = MemoryWebhooks(make_webhook(f"http://{host}:{receiver.port}/"))
    strict = AddressRule.parse(("http",), (), any_port=True)
    async with sending(store, rule=strict) as sink:
        outcome = await sink.send(make_message(**FIRST))
    assert outcome.error_kind is ErrorKind.BLOCKED_ADDRESS
    assert outcome.detail.startswith("url must ")
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        (None, DeliveryStatus.CANCELLED),
        (WebhookStatus.PAUSED, DeliveryStatus.SKIPPED),
        (WebhookStatus.DISABLED, DeliveryStatus.SKIPPED),
    ],
)
async def test_webhook_that_is_gone_or_off_is_not_called(
    receiver: Receiver, status: WebhookStatus | None, ended: DeliveryStatus
) -> None:
    rows = [] if status is None else [make_webhook(receiver.url, status=status)]
    store, message = MemoryWebhooks(*rows), make_message(**FIRST)
    async with sending(store) as sink:
        outcome = await sink.send(message)
        schedule = await sink.schedule(message)
        await sink.settled(message, outcome)
    assert decide(schedule, 1, outcome, 0.0, 0.0) == Dead(ended)
    assert all(row.consecutive_failures == 0 for row in store.rows.values())
    assert receiver.requests == []


async def test_unusable_secret_ends_the_delivery_without_showing_it(receiver: Receiver) -> None:
    outcome = await attempt(make_webhook(receiver.url, secret="whsec_c2hvcnQ="))
    assert (outcome.error_kind, outcome.permanent) == (ErrorKind.CONFIGURATION, True)
    assert "c2hvcnQ" not in outcome.detail
    assert receiver.requests == []


async def test_successes_within_a_second_are_noted_once_but_each_after_a_failure() -> None:
    store, at, message = MemoryWebhooks(make_webhook()), [10.0], make_message(**FIRST)
    noted = []
    async with sending(store, now=lambda: at[0]) as sink:
        for moment in (10.0, 10.9, 11.0):
            at[0] = moment
            await sink.settled(message, Outcome(0.1, status_code=200))
            noted.append(store.rows["wh_1"].last_success_at)
        await sink.settled(message, Outcome(0.1, ErrorKind.TIMEOUT))
        at[0] = 11.5
        await sink.settled(message, Outcome(0.1, status_code=200))
    assert noted == [10.0, 10.0, 11.0]
    assert (store.rows["wh_1"].last_success_at, store.rows["wh_1"].failing_since) == (11.5, None)


FIRST_FAILURE = 1000.0
DEAD_SECONDS = 120 * 3600.0


async def fail(sink: WebhookSink, status: DeliveryStatus) -> None:
    message = make_message(**FIRST, status=status)
    await sink.settled(message, Outcome(0.1, ErrorKind.HTTP_STATUS, 500))


async def test_webhook_without_success_for_five_days_and_five_exhausted_is_disabled() -> None:
    store, at = MemoryWebhooks(make_webhook()), [FIRST_FAILURE]
    async with sending(store, now=lambda: at[0]) as sink:
        for _ in range(5):
            await fail(sink, DeliveryStatus.EXHAUSTED)
        at[0] = FIRST_FAILURE + DEAD_SECONDS - 1
        await fail(sink, DeliveryStatus.RETRYING)
        before = store.rows["wh_1"].status
        at[0] = FIRST_FAILURE + DEAD_SECONDS
        await fail(sink, DeliveryStatus.RETRYING)
        await fail(sink, DeliveryStatus.RETRYING)
    after = store.rows["wh_1"]
    assert (before, after.status) == (WebhookStatus.ACTIVE, WebhookStatus.DISABLED)
    assert after.disabled_reason == ("No delivery succeeded for 120 hours, and 5 were given up.")
    assert [(entry.action, entry.actor) for entry in store.audit] == [
        ("webhook.disabled", "gateway")
    ]


async def test_webhook_with_too_few_exhausted_stays_active_however_long() -> None:
    store, at = MemoryWebhooks(make_webhook()), [FIRST_FAILURE]
    async with sending(store, now=lambda: at[0]) as sink:
        for _ in range(4):
            await fail(sink, DeliveryStatus.EXHAUSTED)
        at[0] += 10 * DEAD_SECONDS
        await fail(sink, DeliveryStatus.RETRYING)
    assert store.rows["wh_1"].status is WebhookStatus.ACTIVE


async def test_flapping_webhook_stays_active() -> None:
    store, at = MemoryWebhooks(make_webhook()), [FIRST_FAILURE]
    async with sending(store, now=lambda: at[0]) as sink:
        for _ in range(10):
            for _ in range(6):
                await fail(sink, DeliveryStatus.EXHAUSTED)
            at[0] += DEAD_SECONDS - 1
            await sink.settled(make_message(**FIRST), Outcome(0.1, status_code=200))
        await fail(sink, DeliveryStatus.EXHAUSTED)
    assert store.rows["wh_1"].status is WebhookStatus.ACTIVE
    assert store.audit == []


async def test_endpoint_idle_for_long_is_not_dead_at_its_first_failures() -> None:
    store = MemoryWebhooks(make_webhook(last_success_at=0.0))
    async with sending(store, now=lambda: 10 * DEAD_SECONDS) as sink:
        for _ in range(6):
            await fail(sink, DeliveryStatus.EXHAUSTED)
    assert store.rows["wh_1"].status is WebhookStatus.ACTIVE


async def test_outcomes_are_counted_for_the_webhook() -> None:
    store, message = MemoryWebhooks(make_webhook()), make_message(**FIRST)
    async with sending(store, now=lambda: 7.0) as sink:
        await sink.settled(message, Outcome(0.1, ErrorKind.TIMEOUT))
        await sink.settled(message, Outcome(0.1, ErrorKind.HTTP_STATUS, 500))
        failures = store.rows["wh_1"].consecutive_failures
        await sink.settled(message, Outcome(0.1, status_code=200))
    assert failures == 2
    assert store.rows["wh_1"].consecutive_failures == 0
    assert store.rows["wh_1"].last_success_at == 7.0


@pytest.mark.parametrize(
    ("max_retries", "kind", "delays"),
    [
        (None, "job.started", (0.5, 2, 30)),
        (0, "job.started", ()),
        (1, "job.completed", (0.5,)),
        (10, "job.completed", (0.5, 2, 30, 300, 1800, 7200, 18000, 36000, 36000)),
        (None, "job.progress", (0.5,)),
        (0, "job.progress", ()),
        (10, "job.progress", (0.5,)),
    ],
)
async def test_schedule_is_the_settings_truncated(
    max_retries: int | None, kind: str, delays: tuple[float, ...]
) -> None:
    store = MemoryWebhooks(make_webhook(max_retries=max_retries))
    async with sending(store) as sink:
        schedule = await sink.schedule(make_message(kind=kind))
    assert schedule.delays_seconds == delays


async def test_store_away_is_said_before_anything_is_sent(receiver: Receiver) -> None:
    store = MemoryWebhooks(make_webhook(receiver.url))
    store.away = True
    async with sending(store) as sink:
        with pytest.raises(StoreUnavailable):
            await sink.send(make_message(**FIRST))
    assert receiver.requests == []


async def test_body_over_a_mebibyte_is_sent_whole(receiver: Receiver) -> None:
    body = b'"' + b"x" * 3 * 1024**2 + b'"'
    assert (await attempt(make_webhook(receiver.url), body=body)).ok
    assert receiver.requests[0].body == body


async def test_proxy_of_the_environment_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await attempt(make_webhook(receiver.url))).ok


async def test_cookies_of_a_receiver_are_not_sent_back(receiver: Receiver) -> None:
    receiver.always(Reply(200, {"Set-Cookie": "a=b"}))
    async with sending(MemoryWebhooks(make_webhook(receiver.url))) as sink:
        for _ in range(2):
            await sink.send(make_message(**FIRST))
    assert "Cookie" not in receiver.requests[1].headers


async def test_a_signature_is_of_the_time_that_receivers_know(receiver: Receiver) -> None:
    store = MemoryWebhooks(make_webhook(receiver.url))
    async with sending(store, now=lambda: 1_000.0, wall=lambda: 5_000.9) as sink:
        await sink.send(make_message(attempt=1))

    assert receiver.requests[0].headers["webhook-timestamp"] == "5000"


async def test_a_webhook_with_a_rate_waits_for_its_turn(receiver: Receiver) -> None:
    store = MemoryWebhooks(replace(make_webhook(receiver.url), max_per_second=20.0))
    started = time.monotonic()
    async with sending(store) as sink:
        await asyncio.gather(*(sink.send(make_message(attempt=1)) for _ in range(3)))
    assert time.monotonic() - started >= 0.1  # two periods; how much longer is the machine's affair


async def test_limits_come_from_the_settings() -> None:
    sink = WebhookSink(
        MemoryWebhooks(), Webhooks(concurrency=9, per_endpoint=2), RULE, now=time.time
    )
    assert (sink.name, sink.concurrency, sink.per_destination) == ("webhook", 9, 2)
    assert sink.deadline_seconds == 32.0  # two may wait for their turn, a second each
    await sink.close()  # never started
