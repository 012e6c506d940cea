"""The whole chain: its order."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from gateway.core.admission import Bounds
from gateway.core.credential import format_key, hash_key
from gateway.core.job import Job, State
from gateway.core.message import Handler, Request
from gateway.core.route import OTHER, Match, Route
from gateway.policy.admission import Admission
from gateway.policy.build import Parts, build
from gateway.policy.cache import ResponseCache
from gateway.policy.idempotency import IdempotencyParts
from gateway.policy.key_source import KeySource
from gateway.policy.long_poll import LongPoll
from gateway.policy.openapi_source import OpenApiSource
from gateway.policy.place import LocalPlaces
from gateway.policy.shared_window import SharedWindows
from gateway.policy.ticket import Tickets
from gateway.policy.waiter import Waiters
from gateway.settings.job import Admission as AdmissionSettings
from gateway.settings.policy import CachePolicy, PolicySet
from gateway.store.memory.response import MemoryResponseStore
from gateway.store.memory.window import MemoryWindowStore
from gateway.telemetry.metric import Metrics
from gateway.web.problem import ProblemBoundary
from tests.support.fakes import FakeClock, document, make_request
from tests.support.policy import Headers, NoIdempotency, NoKeys, Terminal, answer

KEY = format_key(b"the-only-key-of-this-chain")
STATUS = Match(Route("job-status", "/jobs/{job_id}/status"), {"job_id": "j1"})
POLICIES = {
    "auth": {
        "entries": [{"id": "k1", "hash": hash_key(KEY), "owner": "alice"}],
        "scopes": {"job-status": ["jobs:read"]},
    },
    "rate_limits": {
        "limits": {
            "per-ip": {"limit": 3, "window": "60s", "by": ["ip"]},
            "per-key": {"limit": 2, "window": "60s", "by": ["key"]},
        }
    },
}
Lines = list[MutableMapping[str, Any]]


async def unpublished(_: str) -> None:
    """An upstream without a description of itself."""


class Jobs:
    """How many are active."""

    active_count = 0
    active_jobs: tuple[Job, ...] = ()
    durations: tuple[float, ...] = ()


async def nobody(*_: object) -> None:
    """Finds no job."""


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal(lambda: answer({"status": "running"}))


@pytest.fixture
def handler(metrics: Metrics, clock: FakeClock, terminal: Terminal, jobs: Jobs) -> Handler:
    windows = MemoryWindowStore()
    cache = ResponseCache(
        CachePolicy(),
        store=MemoryResponseStore(1024**2, metrics),
        state_of=lambda _: State.RUNNING,
        is_watched=lambda _: False,
        route_of=lambda method, path: Match(OTHER),
        metrics=metrics,
        now=clock,
    )
    parts = Parts(
        windows=SharedWindows(windows, windows, metrics, clock),
        keys=KeySource(NoKeys(), metrics, clock),
        tickets=Tickets(bytes(32), 60.0, clock),
        boundary=ProblemBoundary(),
        idempotency=IdempotencyParts(
            store=NoIdempotency(),
            find_job=nobody,
            metrics=metrics,
            now=clock,
            token=lambda: "t",
            max_body=1000,
            lease_seconds=60.0,
        ),
        admission=Admission(
            AdmissionSettings(max_concurrent=1), LocalPlaces(Bounds(1), jobs), jobs, metrics, clock
        ),
        long_poll=LongPoll(
            CachePolicy(),
            cache=cache,
            waiters=Waiters(metrics),
            is_active=lambda _: False,
            metrics=metrics,
            now=clock,
        ),
        cache=cache,
        find=lambda *_: STATUS,
        openapi=OpenApiSource(unpublished),
        metrics=metrics,
        now=clock,
        request_id_prefix="prefix-",
    )
    return build(PolicySet.model_validate(POLICIES), parts, terminal)


def poll(headers: Headers) -> Request:
    return make_request("GET", "/jobs/j1/status", owner=None, headers=headers, match=STATUS)


async def test_an_admitted_request_passes_every_policy(
    handler: Handler, terminal: Terminal, lines: Lines
) -> None:
    response = await handler(poll({"X-API-Key": KEY}))

    assert dict(terminal.headers) == {"X-Request-ID": "prefix-000001"}
    assert response.headers["X-Request-ID"] == "prefix-000001"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["RateLimit-Policy"] == '"per-ip";q=3;w=60, "per-key";q=2;w=60'
    assert response.headers["Cache-Status"] == "gateway; fwd=uri-miss; stored"
    [line] = lines
    assert (line["event"], line["key_id"], line["cache"]) == ("request", "k1", "miss")
    assert line["quota"] == {"per-ip": 2, "per-key": 1}


async def test_a_refusal_carries_the_headers_its_id_and_a_line(
    handler: Handler, terminal: Terminal, lines: Lines
) -> None:
    response = await handler(poll({}))

    assert (response.status, terminal.requests) == (401, [])
    assert document(response)["request_id"] == response.headers["X-Request-ID"]
    assert response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["RateLimit-Policy"] == '"per-ip";q=3;w=60'
    assert (lines[0]["status"], lines[0]["problem"]) == (401, "unauthorized")


async def test_addresses_are_limited_before_keys_are_looked_at(handler: Handler) -> None:
    responses = [await handler(poll({"X-API-Key": "gw_guess"})) for _ in range(4)]

    assert [response.status for response in responses] == [401, 401, 401, 429]


async def test_a_key_is_limited_before_the_cache_answers(
    handler: Handler, terminal: Terminal
) -> None:
    responses = [await handler(poll({"X-API-Key": KEY})) for _ in range(3)]

    assert [response.status for response in responses] == [200, 200, 429]
    assert document(responses[2])["violated-policies"] == ["per-key"]
    assert len(terminal.requests) == 1


async def test_a_cached_answer_carries_its_own_id_and_quota(handler: Handler) -> None:
    first, second = [await handler(poll({"X-API-Key": KEY})) for _ in range(2)]

    assert second.headers["Cache-Status"].startswith("gateway; hit")
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert '"per-key";r=0;' in second.headers["RateLimit"]


async def test_a_creation_beyond_the_active_jobs_never_reaches_the_upstream(
    handler: Handler, terminal: Terminal, jobs: Jobs
) -> None:
    jobs.active_count = 1
    match = Match(Route("job-create", "/jobs"))
    request = make_request("POST", "/jobs", {}, owner=None, headers={"X-API-Key": KEY}, match=match)

    response = await handler(request)

    assert (response.status, terminal.requests) == (503, [])
    assert response.headers["RateLimit"]
