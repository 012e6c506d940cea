"""Creations with an idempotency key, over a real store."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.core.error import (
    Conflict,
    GatewayError,
    InvalidRequest,
    ServiceUnavailable,
    StoreUnavailable,
    UpstreamRefused,
    UpstreamReset,
)
from gateway.core.idempotency import Entry, Reservation
from gateway.core.message import Request, Response
from gateway.core.route import Match, Route
from gateway.policy.idempotency import MAX_ANSWER_BYTES, Idempotency, IdempotencyParts
from gateway.settings.policy import IdempotencyPolicy
from gateway.store.sqlite import Database
from gateway.store.sqlite.idempotency import SqliteIdempotencyStore
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, document, make_request
from tests.support.policy import NoIdempotency, SlowTerminal, Terminal, answer, sample, stream

CREATE = Match(Route("job-create", "/jobs"))
BODY = {"url": "https://example.com/1"}


class Absent(NoIdempotency):
    """A store that does not answer."""

    async def begin(self, wanted: Reservation, now: float) -> Entry | None:
        raise StoreUnavailable("away")


class Gate:
    """The policy before a terminal, and what the gateway knows of jobs."""

    def __init__(self, store: SqliteIdempotencyStore, metrics: Metrics, clock: FakeClock) -> None:
        self.store = store
        self.jobs: dict[str, str] = {}
        self.terminal = Terminal(lambda: answer({"job_id": f"j{len(self.terminal.requests)}"}))
        self._numbers = itertools.count(1)
        self.parts = IdempotencyParts(
            store=store,
            find_job=self._find,
            metrics=metrics,
            now=clock,
            token=lambda: f"t{next(self._numbers)}",
            max_body=1000,
            lease_seconds=60.0,
        )

    async def _find(self, owner: str, request_id: str, since: float) -> str | None:
        return self.jobs.get(request_id)

    def request(
        self, key: str | None = '"k"', body: Any = None, owner: str = "alice", **given: Any
    ) -> Request:
        headers = {} if key is None else {"Idempotency-Key": key}
        request = make_request(
            "POST",
            given.pop("target", "/jobs"),
            BODY if body is None else body,
            owner=owner,
            headers=headers,
            match=given.pop("match", CREATE),
        )
        request.request_id = f"r{next(self._numbers)}"
        return request

    async def ask(
        self, *given: Any, terminal: Any = None, policy: dict[str, Any] | None = None, **more: Any
    ) -> Response:
        self.last = self.request(*given, **more)
        settings = IdempotencyPolicy.model_validate(policy or {})
        return await Idempotency(settings, self.parts)(self.last, terminal or self.terminal)

    async def refused(self, *given: Any, **more: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.ask(*given, **more)
        return caught.value


@pytest.fixture
async def gate(tmp_path: Path, metrics: Metrics, clock: FakeClock) -> AsyncIterator[Gate]:
    database = Database(tmp_path / "gateway.db")
    await database.open()
    yield Gate(SqliteIdempotencyStore(database), metrics, clock)
    await database.close()


async def test_the_same_request_gets_the_same_answer_and_no_second_job(gate: Gate) -> None:
    first, second = await gate.ask(), await gate.ask()

    assert document(first) == document(second) == {"job_id": "j1"}
    assert len(gate.terminal.requests) == 1
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["Content-Type"] == "application/json"


async def test_quoted_or_bare_it_is_the_same_key(gate: Gate) -> None:
    await gate.ask('"k"')

    assert (await gate.ask("k")).headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("other", [{"body": {"url": "x"}}, {"target": "/jobs?x=1"}])
async def test_a_key_cannot_stand_for_another_request(gate: Gate, other: dict[str, Any]) -> None:
    await gate.ask()

    error = await gate.refused(**other)

    assert (error.status, error.slug) == (422, "idempotency-key-reused")
    assert len(gate.terminal.requests) == 1


async def test_a_key_is_its_owners(gate: Gate) -> None:
    await gate.ask(owner="alice")
    response = await gate.ask(owner="bob", body={"url": "x"})

    assert document(response) == {"job_id": "j2"}


async def test_a_twin_is_told_to_wait(gate: Gate) -> None:
    slow = SlowTerminal()
    first = asyncio.create_task(gate.ask(terminal=slow))
    await slow.arrived()

    error = await gate.refused()

    assert (error.status, error.slug) == (409, "request-outstanding")
    assert error.headers == {"Retry-After": "2"}
    slow.gate.set()
    await first
    assert (await gate.ask()).headers["Idempotency-Replayed"] == "true"
    assert gate.terminal.requests == []


async def test_of_many_twins_one_reaches_the_upstream(gate: Gate) -> None:
    slow = SlowTerminal()
    tasks = [asyncio.create_task(gate.ask(terminal=slow)) for _ in range(10)]
    await slow.arrived()
    slow.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert len(slow.requests) == 1
    assert all(isinstance(each, Response | Conflict) for each in results)


async def test_a_client_that_leaves_finds_the_answer_when_it_returns(gate: Gate) -> None:
    slow = SlowTerminal(lambda: answer({"job_id": "j1"}))
    first = asyncio.create_task(gate.ask(terminal=slow))
    await slow.arrived()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    slow.gate.set()
    await gate.parts.close(5.0)

    assert document(await gate.ask()) == {"job_id": "j1"}
    assert gate.terminal.requests == []


async def test_what_does_not_end_before_the_gateway_does_is_unknown(gate: Gate) -> None:
    slow = SlowTerminal()
    first = asyncio.create_task(gate.ask(terminal=slow))
    await slow.arrived()
    await gate.parts.close(0.0)
    with pytest.raises(asyncio.CancelledError):
        await first

    assert (await gate.refused()).slug == "outcome-unknown"


@pytest.mark.parametrize(
    "end",
    [
        lambda: answer(b"{}", 422),
        lambda: answer(b"{}", 503),
        lambda: UpstreamRefused("down"),
        lambda: ServiceUnavailable("10 jobs are active"),
    ],
)
async def test_where_nothing_was_created_the_key_is_free_again(gate: Gate, end: Any) -> None:
    try:
        await gate.ask(terminal=Terminal(end))
    except GatewayError:
        pass

    assert document(await gate.ask(body={"url": "corrected"})) == {"job_id": "j1"}


async def test_a_failure_of_the_upstream_is_given_again(gate: Gate) -> None:
    await gate.ask(terminal=Terminal(lambda: answer(b"{}", 500)))

    response = await gate.ask()

    assert (response.status, response.headers["Idempotency-Replayed"]) == (500, "true")
    assert gate.terminal.requests == []


@pytest.mark.parametrize("end", [lambda: UpstreamReset("gone"), lambda: RuntimeError("defect")])
async def test_a_creation_that_broke_off_is_never_repeated(gate: Gate, end: Any) -> None:
    with pytest.raises((GatewayError, RuntimeError)):
        await gate.ask(terminal=Terminal(end))

    error = await gate.refused()

    assert (error.status, error.slug) == (409, "outcome-unknown")
    assert "Retry-After" not in error.headers
    assert gate.terminal.requests == []


async def test_a_job_that_is_known_is_named(gate: Gate) -> None:
    with pytest.raises(UpstreamReset):
        await gate.ask(terminal=Terminal(lambda: UpstreamReset("gone")))
    gate.jobs[gate.last.request_id] = "job-7"

    error = await gate.refused()

    assert error.extra == {"job_id": "job-7"}
    assert "job-7" in error.detail


async def test_a_crash_between_answer_and_store_leaves_the_outcome_unknown(gate: Gate) -> None:
    slow = SlowTerminal()
    first = asyncio.create_task(gate.ask(terminal=slow))
    await slow.arrived()
    await gate.store.void()  # the next process's start

    assert (await gate.refused()).slug == "outcome-unknown"
    slow.gate.set()
    await first


async def test_a_lease_that_ran_out_says_that_its_holder_died(gate: Gate, clock: FakeClock) -> None:
    slow = SlowTerminal()
    first = asyncio.create_task(gate.ask(terminal=slow))
    await slow.arrived()
    clock.at += 60

    assert (await gate.refused()).slug == "outcome-unknown"
    slow.gate.set()
    await first


@pytest.mark.parametrize(
    "end",
    [
        lambda: Response(200, body=stream(b"a")),
        lambda: answer(b"x" * (MAX_ANSWER_BYTES + 1)),
    ],
)
async def test_an_answer_too_large_to_keep_is_passed_on_but_not_given_again(
    gate: Gate, end: Any
) -> None:
    assert (await gate.ask(terminal=Terminal(end))).status == 200

    assert (await gate.refused()).slug == "outcome-unknown"


async def test_after_the_retention_a_key_is_free(gate: Gate, clock: FakeClock) -> None:
    policy = {"retention": "1h"}
    await gate.ask(policy=policy)
    clock.at += 3600

    assert document(await gate.ask(policy=policy)) == {"job_id": "j2"}


async def test_without_a_key_every_creation_is_one(gate: Gate) -> None:
    assert [document(await gate.ask(None))["job_id"] for _ in range(2)] == ["j1", "j2"]


async def test_a_key_may_be_required(gate: Gate) -> None:
    error = await gate.refused(None, policy={"required": True})

    assert (error.status, error.slug) == (400, "idempotency-key-missing")


async def test_a_key_that_is_none_is_refused(gate: Gate) -> None:
    assert isinstance(await gate.refused('"'), InvalidRequest)


async def test_only_creations_have_keys(gate: Gate) -> None:
    match = Match(Route("job-cancel", "/jobs"))
    for _ in range(2):
        await gate.ask(match=match, policy={"required": True})

    assert len(gate.terminal.requests) == 2


async def test_switched_off_keys_mean_nothing(gate: Gate) -> None:
    for _ in range(2):
        await gate.ask(policy={"enabled": False})

    assert len(gate.terminal.requests) == 2


@pytest.mark.parametrize(("wanted", "status"), [("deny", 503), ("allow", 200)])
async def test_while_the_store_is_away_policy_decides(
    gate: Gate, metrics: Metrics, wanted: str, status: int
) -> None:
    object.__setattr__(gate.parts, "store", Absent())
    policy = {"on_store_error": wanted}
    if status == 200:
        assert (await gate.ask(policy=policy)).status == 200
    else:
        assert isinstance(await gate.refused(policy=policy), StoreUnavailable)

    assert sample(metrics, "store_errors_total", store="idempotency") == 1


async def test_a_shadow_tells_and_passes_on(gate: Gate, metrics: Metrics) -> None:
    policy = {"mode": "shadow"}
    with structlog.testing.capture_logs() as lines:
        for body in (BODY, BODY, {"url": "x"}):
            assert (await gate.ask(body=body, policy=policy)).status == 200

    assert len(gate.terminal.requests) == 3
    assert [line["problem"] for line in lines] == ["idempotency-key-reused"]
    assert sample(metrics, "idempotency_total", result="replayed") == 1
    assert sample(metrics, "idempotency_total", result="reused") == 1


@pytest.mark.parametrize(
    ("key", "policy", "said"),
    [
        ('"k"', {}, "the first answer within 86400 s is given again"),
        (None, {}, "passed: no key"),
        (None, {"required": True}, "400 idempotency-key-missing"),
        ("a b", {"mode": "shadow"}, "400 invalid-request (shadow: let through)"),
        ('"k"', {"enabled": False}, "switched off"),
    ],
)
def test_what_would_be_decided_is_told(
    metrics: Metrics, clock: FakeClock, key: str | None, policy: dict[str, Any], said: str
) -> None:
    gate = Gate(None, metrics, clock)  # type: ignore[arg-type]  # nothing may ask the store
    settings = IdempotencyPolicy.model_validate(policy)

    assert Idempotency(settings, gate.parts).explain(gate.request(key)) == said
