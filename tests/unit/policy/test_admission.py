"""How many jobs may be active at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from gateway.core.admission import Bounds
from gateway.core.credential import Principal
from gateway.core.error import ServiceUnavailable
from gateway.core.job import Job, JobChange
from gateway.core.message import Request, Response
from gateway.core.route import Match, Route
from gateway.policy.admission import Admission
from gateway.policy.place import LocalPlaces
from gateway.settings.job import Admission as AdmissionSettings
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, make_request
from tests.support.policy import SlowTerminal, Terminal, sample
from tests.support.store import NOW, new_job

CREATE = Match(Route("job-create", "/jobs"))


class Jobs:
    """The active jobs, and how long the latest took."""

    def __init__(self) -> None:
        self.active_jobs: list[Job] = []
        self.durations: Sequence[float] = ()

    @property
    def active_count(self) -> int:
        return len(self.active_jobs)

    def add(
        self,
        owner: str = "alice",
        age: float = 0.0,
        request_id: str | None = None,
        key: str | None = None,
    ) -> JobChange:
        name = f"job-{len(self.active_jobs)}"
        change = new_job(name, NOW - age, owner=owner, request_id=request_id, key=key)
        self.active_jobs.append(change.job)
        return change


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


class Gate:
    """The policy; each creation has a request id of its own."""

    def __init__(self, jobs: Jobs, metrics: Metrics, clock: FakeClock, **settings: Any) -> None:
        given = AdmissionSettings(**settings)
        bounds = Bounds(given.max_concurrent, given.max_per_owner, given.max_per_key)
        self.places = LocalPlaces(bounds, jobs)
        self.policy = Admission(given, self.places, jobs, metrics, clock)
        self._count = 0

    def request(
        self, owner: str | None = "alice", match: Match = CREATE, key: str | None = None
    ) -> Request:
        self._count += 1
        request = make_request("POST", "/jobs", {}, owner=owner, match=match)
        request.request_id = f"r{self._count}"
        if owner is not None and key is not None:
            request.principal = Principal(key, owner, frozenset())
        return request

    async def create(
        self, terminal: Terminal, owner: str | None = "alice", key: str | None = None
    ) -> Response:
        return await self.policy(self.request(owner, key=key), terminal)


async def test_a_creation_beyond_the_most_is_refused(
    jobs: Jobs, terminal: Terminal, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=2)
    jobs.add()
    await gate.create(terminal)
    jobs.add()

    with pytest.raises(ServiceUnavailable, match="2 jobs are active") as caught:
        await gate.create(terminal)
    assert caught.value.headers == {"Retry-After": "30"}
    assert sample(metrics, "admission_decisions_total", decision="refused") == 1
    assert sample(metrics, "admission_decisions_total", decision="admitted") == 1


async def test_other_requests_need_no_place(
    jobs: Jobs, terminal: Terminal, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=1)
    jobs.add()

    response = await gate.policy(gate.request(match=Match(Route("job-list", "/jobs"))), terminal)

    assert response.status == 200


async def test_concurrent_creations_never_take_more_places_than_there_are(
    jobs: Jobs, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=3)
    terminal = SlowTerminal()
    jobs.add()
    tasks = [asyncio.create_task(gate.create(terminal)) for _ in range(10)]
    await terminal.arrived(2)
    terminal.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert sum(isinstance(each, Response) for each in results) == 2
    assert sum(isinstance(each, ServiceUnavailable) for each in results) == 8


async def test_a_creation_and_its_job_never_count_twice(
    jobs: Jobs, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=2)
    slow = SlowTerminal()
    first = gate.request()
    task = asyncio.create_task(gate.policy(first, slow))
    await slow.arrived()
    recorded = jobs.add(request_id=first.request_id, key=first.lineage)  # not yet answered
    await gate.places.noted(recorded)

    assert (await gate.create(Terminal())).status == 200
    slow.gate.set()
    await task


async def test_a_creation_that_failed_gives_its_place_back(
    jobs: Jobs, terminal: Terminal, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=1)
    with pytest.raises(RuntimeError):
        await gate.create(Terminal(lambda: RuntimeError("broken")))

    assert (await gate.create(terminal)).status == 200


async def test_an_owner_may_have_fewer(
    jobs: Jobs, terminal: Terminal, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=10, max_per_owner=1)
    jobs.add("alice")

    with pytest.raises(ServiceUnavailable, match="1 jobs of yours"):
        await gate.create(terminal, "alice")
    assert (await gate.create(terminal, "bob")).status == 200


async def test_an_owners_creations_under_way_count(
    jobs: Jobs, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=10, max_per_owner=1)
    slow = SlowTerminal()
    task = asyncio.create_task(gate.create(slow))
    await slow.arrived()

    with pytest.raises(ServiceUnavailable):
        await gate.create(Terminal())
    slow.gate.set()
    await task


async def test_a_key_may_have_fewer(
    jobs: Jobs, terminal: Terminal, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=10, max_per_key=1)
    jobs.add("alice", key="ci")

    with pytest.raises(ServiceUnavailable, match="1 jobs of this key"):
        await gate.create(terminal, "alice", key="ci")
    assert (await gate.create(terminal, "alice", key="laptop")).status == 200


async def test_a_successor_has_the_places_of_its_key(
    jobs: Jobs, terminal: Terminal, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=10, max_per_key=1)
    jobs.add("alice", key="ci")
    request = gate.request()
    request.principal = Principal("ci-2", "alice", frozenset(), lineage="ci")

    with pytest.raises(ServiceUnavailable):
        await gate.policy(request, terminal)


async def test_who_has_no_key_has_no_bound_of_one(
    jobs: Jobs, terminal: Terminal, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=10, max_per_key=1)
    jobs.add("anonymous")

    assert (await gate.create(terminal, None)).status == 200


async def test_creations_that_a_client_calls_alike_hold_a_place_each(
    jobs: Jobs, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=2)
    slow = SlowTerminal()
    requests = [gate.request() for _ in range(2)]
    for request in requests:
        request.request_id = "chosen-by-the-client"
    tasks = [asyncio.create_task(gate.policy(request, slow)) for request in requests]
    await slow.arrived(2)

    with pytest.raises(ServiceUnavailable):
        await gate.create(Terminal())

    # One becomes a job and is answered; the other is still under way.
    await gate.places.noted(jobs.add(request_id="chosen-by-the-client", key=requests[0].lineage))
    with pytest.raises(ServiceUnavailable):
        await gate.create(Terminal())
    slow.gate.set()
    await asyncio.gather(*tasks)
    assert (await gate.create(Terminal())).status == 200


@pytest.mark.parametrize(
    ("ages", "durations", "wait"),
    [([10.0], (100.0, 200.0, 300.0), "190"), ([299.5], (300.0,), "1"), ([0.0], (1e6,), "3600")],
)
async def test_the_wait_is_what_experience_tells(
    jobs: Jobs,
    terminal: Terminal,
    metrics: Metrics,
    clock: FakeClock,
    ages: list[float],
    durations: Sequence[float],
    wait: str,
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=len(ages))
    for age in ages:
        jobs.add(age=age)
    jobs.durations = durations

    with pytest.raises(ServiceUnavailable) as caught:
        await gate.create(terminal)
    assert caught.value.headers["Retry-After"] == wait


async def test_an_owner_waits_for_a_job_of_its_own(
    jobs: Jobs, terminal: Terminal, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=10, max_per_owner=1)
    jobs.durations = (100.0,)
    jobs.add("alice", age=20)
    jobs.add("bob", age=90)

    with pytest.raises(ServiceUnavailable) as caught:
        await gate.create(terminal, "alice")
    assert caught.value.headers["Retry-After"] == "80"


async def test_a_shadow_counts_and_lets_through(
    jobs: Jobs, terminal: Terminal, metrics: Metrics, clock: FakeClock
) -> None:
    gate = Gate(jobs, metrics, clock, max_concurrent=1, mode="shadow")
    jobs.add()
    with structlog.testing.capture_logs() as lines:
        assert (await gate.create(terminal)).status == 200

    assert [line["event"] for line in lines] == ["admission_shadow"]
    assert sample(metrics, "admission_decisions_total", decision="shadow") == 1


def test_what_would_be_decided_is_told(jobs: Jobs, metrics: Metrics, clock: FakeClock) -> None:
    bounds = {"max_concurrent": 3, "max_per_owner": 2, "max_per_key": 1}
    gate = Gate(jobs, metrics, clock, **bounds, mode="shadow")

    said = gate.policy.explain(gate.request())

    assert said == (
        "3 jobs may be active at once, 2 of one owner, 1 of one key (shadow: let through)"
    )
