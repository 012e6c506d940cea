"""Convex's HTTP API: what is asked, and what each kind of answer means for a message."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from gateway.core.outbox import DeliveryStatus, Message
from gateway.core.retry import Dead, ErrorKind, RetryAt, Verdict, decide
from gateway.delivery import convex, convex_error
from gateway.delivery.convex import (
    ConvexClient,
    ConvexConfigurationError,
    ConvexError,
    ConvexFunctionError,
    ConvexUnavailable,
    HistoryQuery,
)
from gateway.delivery.convex_sink import (
    CONFIGURATION_RETRY_SECONDS,
    DOUBTFUL_TRIES,
    ConvexSink,
)
from gateway.settings.delivery import Convex, ConvexFunctions
from tests.support.delivery import make_message
from tests.support.receiver import Answer, Drip, Drop, Flood, Hang, Receiver, Reply

OK = b'{"status":"success","value":{"applied":true,"sequence":1.0}}'


def settings(receiver: Receiver, **fields: Any) -> Convex:
    values: dict[str, Any] = {"url": f"http://127.0.0.1:{receiver.port}", "deploy_key": "dev:x|key"}
    return Convex(**(values | fields))


@pytest.fixture
async def deployment() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        receiver.always(Reply(200, body=OK))
        yield receiver


@asynccontextmanager
async def client_of(configured: Convex) -> AsyncIterator[ConvexClient]:
    client = ConvexClient(configured)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def sink_of(configured: Convex, now: float | None = None) -> AsyncIterator[ConvexSink]:
    clock = time.time if now is None else lambda: now
    sink = ConvexSink(ConvexClient(configured), configured, now=clock)
    await sink.start()
    try:
        yield sink
    finally:
        await sink.close()


def update(**fields: Any) -> Message:
    values: dict[str, Any] = {
        "sink": "convex",
        "destination": "convex",
        "kind": "update_progress",
        "body": b'{"jobId":"j1"}',
        "attempt": 1,
    }
    return make_message(**(values | fields))


def failure(message: str, **fields: object) -> Reply:
    answer = {"status": "error", "errorMessage": message} | fields
    return Reply(200, body=orjson.dumps(answer))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("update_job_progress_detailed", "jobs:updateProgress"),
        ("track_job_analytics", "jobs:trackAnalytics"),
        ("store_webhook_config", "webhooks:storeConfig"),
    ],
)
async def test_method_runs_its_mutation_with_the_deploy_key(
    deployment: Receiver, method: str, path: str
) -> None:
    async with client_of(settings(deployment)) as client:
        value = await getattr(client, method)({"jobId": "j1"}, {"X-Request-ID": "r1"})

    (request,) = deployment.requests
    assert value == {"applied": True, "sequence": 1.0}
    assert (request.method, request.path) == ("POST", "/api/mutation")
    assert request.envelope == {"path": path, "args": {"jobId": "j1"}, "format": "json"}
    expected = {
        "authorization": "Convex dev:x|key",
        "content-type": "application/json",
        "x-request-id": "r1",
    }
    assert {name: request.headers[name] for name in expected} == expected


async def test_without_a_deploy_key_none_is_sent(deployment: Receiver) -> None:
    async with client_of(settings(deployment, deploy_key=None)) as client:
        await client.update_job_progress_detailed({})
    assert "Authorization" not in deployment.requests[0].headers


async def test_url_may_end_in_a_slash_and_paths_are_the_settings(deployment: Receiver) -> None:
    configured = settings(
        deployment,
        url=f"http://127.0.0.1:{deployment.port}/",
        functions=ConvexFunctions(update_progress="their/own:function"),
    )
    async with client_of(configured) as client:
        await client.update_job_progress_detailed({})
    (request,) = deployment.requests
    assert (request.path, request.envelope["path"]) == ("/api/mutation", "their/own:function")


async def test_history_asks_in_milliseconds_and_pages(deployment: Receiver) -> None:
    page = {"page": [{"jobId": "j1"}], "isDone": False, "continueCursor": "c2"}
    deployment.script(
        Reply(200, body=orjson.dumps({"status": "success", "value": page})),
        Reply(200, body=orjson.dumps({"status": "success", "value": page | {"isDone": True}})),
    )
    async with client_of(settings(deployment)) as client:
        first = await client.get_job_history(HistoryQuery(video_id="v1", since=1.5, limit=10))
        last = await client.get_job_history(HistoryQuery(cursor=first.cursor))

    assert (first.jobs, first.cursor) == (({"jobId": "j1"},), "c2")
    assert last.cursor is None
    asked = [request.envelope["args"] for request in deployment.requests]
    assert asked == [
        {"videoId": "v1", "from": 1500.0, "paginationOpts": {"numItems": 10, "cursor": None}},
        {"paginationOpts": {"numItems": 50, "cursor": "c2"}},
    ]
    assert {request.path for request in deployment.requests} == {"/api/query"}


async def test_history_without_a_function_is_a_matter_of_configuration(
    deployment: Receiver,
) -> None:
    configured = settings(deployment, functions=ConvexFunctions(history=None))
    async with client_of(configured) as client:
        with pytest.raises(ConvexConfigurationError, match=r"convex\.functions\.history is null"):
            await client.get_job_history(HistoryQuery())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Reply(429), ErrorKind.HTTP_STATUS),
        (Reply(408), ErrorKind.HTTP_STATUS),
        (Reply(500), ErrorKind.HTTP_STATUS),
        (Reply(503, body=b'{"code":"TooManyConcurrentRequests"}'), ErrorKind.HTTP_STATUS),
        (Reply(200, body=b"<html>Welcome</html>"), ErrorKind.HTTP_STATUS),
        (Reply(200, body=OK[:20]), ErrorKind.HTTP_STATUS),
        (Reply(200, body=b"[]"), ErrorKind.HTTP_STATUS),
        (Reply(200, body=b'{"status":"other"}'), ErrorKind.HTTP_STATUS),
        (Reply(200), ErrorKind.HTTP_STATUS),
        (Drop(), ErrorKind.CONNECT),
        (Hang(), ErrorKind.TIMEOUT),
        (Drip(interval_seconds=0.001), ErrorKind.TIMEOUT),
    ],
)
async def test_deployment_that_is_not_well_is_tried_again(
    deployment: Receiver, answer: Answer, kind: ErrorKind
) -> None:
    deployment.always(answer)
    async with client_of(settings(deployment, timeout=0.1)) as client:
        with pytest.raises(ConvexUnavailable) as error:
            await client.update_job_progress_detailed({})
    assert error.value.kind is kind


async def test_endless_answer_is_cut_off(
    deployment: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convex, "RESPONSE_LIMIT_BYTES", 1000)
    deployment.always(Flood(10_000_000))
    async with client_of(settings(deployment)) as client:
        with pytest.raises(ConvexUnavailable) as error:
            await client.update_job_progress_detailed({})
    assert error.value.kind is ErrorKind.RESPONSE_TOO_LARGE


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404])
async def test_refused_request_is_a_matter_of_configuration(
    deployment: Receiver, status: int
) -> None:
    body = b'{"code":"BadAdminKey","message":"The provided admin key was invalid"}'
    deployment.always(Reply(status, {"Location": deployment.url}, body))
    async with client_of(settings(deployment)) as client:
        with pytest.raises(ConvexConfigurationError) as error:
            await client.update_job_progress_detailed({})
    assert error.value.status_code == status
    assert error.value.detail == (
        f"answered {status}: BadAdminKey: The provided admin key was invalid"
    )
    assert len(deployment.requests) == 1


@pytest.mark.parametrize("status", [200, 560])
async def test_functions_error_is_permanent_and_keeps_its_data(
    deployment: Receiver, status: int
) -> None:
    data = {"code": "INVALID_ARGUMENT"}
    answer = {"status": "error", "errorMessage": "Server\nError", "errorData": data}
    deployment.always(Reply(status, body=orjson.dumps(answer)))
    async with client_of(settings(deployment)) as client:
        with pytest.raises(ConvexFunctionError) as error:
            await client.update_job_progress_detailed({})
    assert error.value.data == data
    assert error.value.detail == 'Server Error {"code":"INVALID_ARGUMENT"}'


@pytest.mark.parametrize(
    "message",
    [
        "Could not find public function for 'jobs:updateProgress'. Did you forget to run ...",
        "Trying to execute jobs.js:updateProgress as Mutation, but it is defined as Query.",
    ],
)
async def test_function_that_is_not_deployed_is_a_matter_of_configuration(
    deployment: Receiver, message: str
) -> None:
    deployment.always(failure(message))
    async with client_of(settings(deployment)) as client:
        with pytest.raises(ConvexConfigurationError, match=r"Could not find|Trying"):
            await client.update_job_progress_detailed({})


async def test_client_without_a_url_is_not_made() -> None:
    with pytest.raises(ValueError, match=r"convex\.url"):
        ConvexClient(Convex())


async def test_key_shows_in_no_error() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        configured = Convex(url=url, deploy_key=SecretStr("dev:x|hidden"))
        async with client_of(configured) as client:
            with pytest.raises(ConvexError) as error:
                await client.update_job_progress_detailed({})
    assert error.value.kind is ErrorKind.CONNECT
    assert "hidden" not in repr(error.value)


async def test_sink_runs_what_the_message_names_and_carries_its_trace(deployment: Receiver) -> None:
    async with sink_of(settings(deployment), now=9.0) as sink:
        outcome = await sink.send(update(request_id="r1", traceparent="00-t"))
        await sink.settled(update(), outcome)

    (request,) = deployment.requests
    assert outcome.ok
    assert (sink.last_error, sink.last_success_at) == (None, 9.0)
    assert request.envelope["args"] == {"jobId": "j1"}
    assert request.headers["X-Request-ID"] == "r1"
    assert request.headers["traceparent"] == "00-t"


async def test_sink_ends_what_a_function_refuses(deployment: Receiver) -> None:
    deployment.always(failure("ArgumentValidationError"))
    async with sink_of(settings(deployment)) as sink:
        outcome = await sink.send(update())
        schedule = await sink.schedule(update())
    assert decide(schedule, 1, outcome, 0.0, 0.0) == Dead(DeliveryStatus.EXHAUSTED)
    assert outcome.error_kind is ErrorKind.REJECTED
    assert outcome.detail == f"ArgumentValidationError; {convex_error.COMPARE}"
    assert sink.last_error is None  # the deployment is well


@pytest.mark.parametrize(
    "message",
    [
        "[Request ID: 5f2c] Server Error",  # production: the cause is hidden
        "Function execution timed out (maximum duration: 1s)",
    ],
)
async def test_sink_tries_a_refusal_again_whose_cause_may_pass(
    deployment: Receiver, message: str
) -> None:
    deployment.always(failure(message))
    verdicts = await _verdicts(deployment)
    assert [type(each) for each in verdicts] == [RetryAt] * (DOUBTFUL_TRIES - 1) + [Dead]


async def test_sink_gives_a_missing_function_up_so_that_others_go_on(deployment: Receiver) -> None:
    deployment.always(failure("Could not find public function for 'jobs:updateProgress'."))
    *early, last = await _verdicts(deployment)
    assert early == [RetryAt(CONFIGURATION_RETRY_SECONDS)] * (DOUBTFUL_TRIES - 1)
    assert last == Dead(DeliveryStatus.EXHAUSTED)


async def test_outage_before_does_not_count_as_a_doubtful_try(deployment: Receiver) -> None:
    deployment.always(failure("[Request ID: 5f2c] Server Error"))
    verdicts = await _verdicts(deployment, first=500)
    assert [type(each) for each in verdicts] == [RetryAt] * (DOUBTFUL_TRIES - 1) + [Dead]


async def test_sink_never_gives_up_for_a_wrong_key(deployment: Receiver) -> None:
    deployment.always(Reply(401, body=b'{"code":"BadAdminKey","message":"wrong"}'))
    assert await _verdicts(deployment) == [RetryAt(CONFIGURATION_RETRY_SECONDS)] * DOUBTFUL_TRIES


async def _verdicts(deployment: Receiver, *, first: int = 1) -> list[Verdict]:
    async with sink_of(settings(deployment)) as sink:
        found = []
        for attempt in range(first, first + DOUBTFUL_TRIES):
            message = update(attempt=attempt)
            schedule = await sink.schedule(message)
            found.append(decide(schedule, attempt, await sink.send(message), 0.0, 0.0))
    return found


async def test_answer_that_echoes_the_key_is_shown_without_it(deployment: Receiver) -> None:
    echo = b'{"code":"Bad","message":"Authorization: Convex dev:x|key"}'
    deployment.always(Reply(400, body=echo))
    async with sink_of(settings(deployment)) as sink:
        outcome = await sink.send(update())
    assert "dev:x|key" not in outcome.detail
    assert "Authorization: Convex [deploy key]" in outcome.detail
    assert "dev:x|key" not in str(sink.last_error)


async def test_sink_retries_configuration_slowly_and_shows_it_until_it_is_mended(
    deployment: Receiver,
) -> None:
    deployment.script(Reply(401, body=b'{"code":"BadAdminKey","message":"wrong"}'))
    async with sink_of(settings(deployment), now=100.0) as sink:
        outcome = await sink.send(update())
        verdict = decide(await sink.schedule(update()), 1, outcome, 100.0, 0.0)
        shown = sink.last_error
        assert (await sink.send(update())).ok
    assert verdict == RetryAt(100.0 + CONFIGURATION_RETRY_SECONDS)
    assert shown == f"configuration: answered 401: BadAdminKey: wrong; {convex_error.KEY}"
    assert sink.last_error is None


async def test_sink_honours_retry_after(deployment: Receiver) -> None:
    deployment.always(Reply(503, {"Retry-After": "33"}))
    async with sink_of(settings(deployment), now=100.0) as sink:
        outcome = await sink.send(update())
        verdict = decide(await sink.schedule(update()), 1, outcome, 100.0, 0.0)
    assert verdict == RetryAt(133.0)
    assert sink.last_fault is not None
    assert (sink.last_fault.kind, sink.last_fault.at) == (ErrorKind.HTTP_STATUS, 100.0)


@pytest.mark.parametrize("attempt", [1, 8, 9, 500])
async def test_sink_never_gives_up_on_a_deployment_that_is_away(
    deployment: Receiver, attempt: int
) -> None:
    deployment.always(Reply(500))
    async with sink_of(settings(deployment)) as sink:
        outcome = await sink.send(update(attempt=attempt))
        schedule = await sink.schedule(update(attempt=attempt))
    delays = Convex().retry_delays
    expected = delays[min(attempt, len(delays)) - 1]
    assert decide(schedule, attempt, outcome, 0.0, 0.0) == RetryAt(expected)


async def test_sink_retries_even_with_no_delays_configured(deployment: Receiver) -> None:
    async with sink_of(settings(deployment, retry_delays=())) as sink:
        schedule = await sink.schedule(update(attempt=3))
    assert schedule.delays_seconds == (60.0, 60.0, 60.0)


@pytest.mark.parametrize("kind", ["update_urls", "job.started"])
async def test_sink_skips_what_no_function_takes(deployment: Receiver, kind: str) -> None:
    async with sink_of(settings(deployment)) as sink:
        outcome = await sink.send(update(kind=kind))
        schedule = await sink.schedule(update())
    assert decide(schedule, 1, outcome, 0.0, 0.0) == Dead(DeliveryStatus.SKIPPED)
    assert deployment.requests == []


async def test_sink_allows_as_many_in_flight_as_the_setting_says(deployment: Receiver) -> None:
    configured = settings(deployment, concurrency=3, timeout=2.0)
    async with sink_of(configured) as sink:
        assert (sink.name, sink.concurrency, sink.per_destination) == ("convex", 3, 3)
        assert sink.deadline_seconds > 2.0
        outcomes = await asyncio.gather(*(sink.send(update()) for _ in range(3)))
    assert all(outcome.ok for outcome in outcomes)
