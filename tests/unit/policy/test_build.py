"""The whole chain: its order."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from gateway.core.credential import format_key, hash_key
from gateway.core.job import Job
from gateway.core.message import Handler, Request
from gateway.core.route import Match, Route
from gateway.policy.build import build
from gateway.settings.policy import PolicySet
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, document, make_request
from tests.support.policy import Headers, Terminal, answer
from tests.support.stack import parts_of

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


class Jobs:
    """How many are active."""

    active_count = 0
    active_jobs: tuple[Job, ...] = ()
    durations: tuple[float, ...] = ()


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
    policies = PolicySet.model_validate(POLICIES)
    parts = parts_of(policies, metrics, clock, find=lambda *_: STATUS, prefix="prefix-", jobs=jobs)
    return build(policies, parts, terminal)


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
