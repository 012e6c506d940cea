"""Polls with `Prefer: wait`, before a handler that stands for the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.error import UpstreamTimeout
from gateway.core.message import Request, Response
from gateway.core.route import Match, Route
from gateway.policy.cache_answer import conditioned
from gateway.policy.long_poll import LongPoll
from gateway.policy.step import NOTHING
from gateway.policy.waiter import Waiters
from gateway.settings.policy import CachePolicy
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, make_request
from tests.support.policy import Headers, Terminal, answer, sample

STATUS = Route("job-status", "/jobs/{job_id}/status", frozenset({"GET", "HEAD"}))


class World:
    """The policy, the job it is asked about, and the status behind it."""

    def __init__(self, metrics: Metrics, clock: FakeClock) -> None:
        self.metrics = metrics
        self.clock = clock
        self.waiters = Waiters(metrics)
        self.active = {"j1"}
        self.kept = self.common = True
        self.tag = '"1"'
        self.terminal = Terminal(self._respond)
        self.make()

    def make(self, **watched: Any) -> None:
        self.policy = LongPoll(
            CachePolicy.model_validate({"watched": watched}),
            cache=self,
            waiters=self.waiters,
            is_active=self.active.__contains__,
            metrics=self.metrics,
            now=self.clock,
        )

    def keeps(self, request: Request) -> bool:
        return self.kept

    def is_common(self, request: Request) -> bool:
        return self.common

    def _respond(self) -> Response | BaseException:
        response = answer({"tag": self.tag}, headers={"ETag": self.tag})
        return conditioned(self.terminal.requests[-1], response, self.clock())

    async def ask(self, headers: Headers = (), **given: Any) -> Response:
        return await self.policy(
            poll({"Prefer": "wait=30", **dict(headers)}, **given), self.terminal
        )

    async def start(self, headers: Headers = ()) -> asyncio.Task[Response]:
        """A poll that waits by now."""
        task = asyncio.create_task(self.ask(headers))
        await turns()
        assert self.waiters.is_awaited("j1")
        return task

    def count(self, result: str) -> float:
        return sample(self.metrics, "waits_total", result=result)


async def turns() -> None:
    """Let all go on as far as it can: nothing here waits for anything but a wake."""
    for _ in range(5):
        await asyncio.sleep(0)


def poll(
    headers: Headers, *, job_id: str = "j1", method: str = "GET", route: Route = STATUS
) -> Request:
    match = Match(route, {"job_id": job_id})
    return make_request(method, f"/jobs/{job_id}/status", headers=headers, match=match)


@pytest.fixture
def world(metrics: Metrics, clock: FakeClock) -> World:
    return World(metrics, clock)


async def test_a_poll_is_answered_at_the_next_change(world: World) -> None:
    task = await world.start()
    assert world.terminal.requests == []

    world.waiters.wake("j1", None)
    response = await task

    assert response.headers["Preference-Applied"] == "wait=30"
    assert "Prefer" not in world.terminal.headers
    assert world.count("changed") == 1


async def test_what_was_fetched_for_all_is_given_to_each_as_its_own(world: World) -> None:
    tasks = [await world.start(), await world.start({"If-None-Match": '"1"'})]
    told = answer(b"told", headers={"ETag": '"2"'})

    world.waiters.wake("j1", told)
    responses = await asyncio.gather(*tasks)

    assert [each.body for each in responses] == [b"told", b"told"]
    assert "Preference-Applied" not in told.headers
    assert len(world.terminal.requests) == 1  # what the second one has was looked at first


async def test_who_is_answered_apart_from_the_others_asks_for_itself(world: World) -> None:
    world.common = False
    task = await world.start()

    world.waiters.wake("j1", answer(b"told"))

    assert (await task).body != b"told"


async def test_a_change_that_leaves_what_the_client_has_is_waited_over(world: World) -> None:
    task = await world.start({"If-None-Match": '"1"'})
    world.waiters.wake("j1", answer(b"same", headers={"ETag": '"1"'}))
    await turns()
    assert not task.done()

    world.waiters.wake("j1", answer(b"new", headers={"ETag": '"2"'}))

    assert (await task).body == b"new"


async def test_who_has_an_older_status_is_answered_at_once(world: World) -> None:
    response = await world.ask({"If-None-Match": '"0"'})

    assert (response.status, response.headers["Preference-Applied"]) == (200, "wait=30")
    assert world.count("at_once") == 1


@pytest.mark.parametrize(("headers", "status"), [({}, 200), ({"If-None-Match": '"1"'}, 304)])
async def test_when_the_time_is_over_the_current_status_is_the_answer(
    world: World, headers: Headers, status: int
) -> None:
    world.make(max_wait="1ms")

    response = await world.ask(headers)

    assert (response.status, world.count("unchanged")) == (status, 1)
    assert response.headers["Preference-Applied"] == "wait=0"


async def test_a_wait_is_cut_to_what_the_policy_allows_and_says_so(world: World) -> None:
    world.make(max_wait="5s")
    task = await world.start()
    world.waiters.wake("j1", None)

    assert (await task).headers["Preference-Applied"] == "wait=5"


async def test_a_job_that_ends_while_its_status_is_looked_at_is_not_waited_for(
    world: World,
) -> None:
    def respond() -> Response:
        world.active.clear()
        return answer(status=304)

    world.terminal.respond = respond

    response = await world.ask({"If-None-Match": '"1"'})

    assert (response.status, world.count("unchanged")) == (304, 1)


def other(world: World) -> dict[str, Callable[[], Any]]:
    return {
        "no wait": lambda: world.ask({"Prefer": "respond-async"}),
        "no figure": lambda: world.ask({"Prefer": "wait=soon"}),
        "another method": lambda: world.ask(method="HEAD"),
        "a job that is not active": lambda: world.ask(job_id="j2"),
        "another route": lambda: world.ask(
            route=Route("job-details", "/jobs/{job_id}", frozenset())
        ),
    }


@pytest.mark.parametrize(
    "what", ["no wait", "no figure", "another method", "a job that is not active", "another route"]
)
async def test_what_does_not_wait_passes_as_it_came(world: World, what: str) -> None:
    response = await other(world)[what]()

    assert "Preference-Applied" not in response.headers
    assert "Prefer" in world.terminal.headers


@pytest.mark.parametrize("how", ["max_wait", "no cache"])
async def test_where_nobody_may_wait_it_passes_as_it_came(world: World, how: str) -> None:
    if how == "max_wait":
        world.make(max_wait=0)
    world.kept = how != "no cache"
    await world.ask()

    assert world.terminal.headers["Prefer"] == "wait=30"


async def test_when_too_many_wait_it_is_answered_at_once(world: World) -> None:
    world.make(max_waiters=0)

    response = await world.ask()

    assert "Preference-Applied" not in response.headers
    assert "Prefer" not in world.terminal.headers
    assert world.count("full") == 1


async def test_a_client_that_leaves_is_counted_and_gone(world: World) -> None:
    task = await world.start()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (world.count("left"), world.waiters.is_awaited("j1")) == (1, False)


async def test_a_drain_answers_with_the_current_status(world: World) -> None:
    task = await world.start({"If-None-Match": '"1"'})
    world.waiters.end()

    assert ((await task).status, world.count("drained")) == (304, 1)


async def test_a_failure_passes_and_nobody_waits_any_more(world: World) -> None:
    world.terminal.respond = lambda: UpstreamTimeout("slow")
    task = await world.start()
    world.waiters.wake("j1", None)

    with pytest.raises(UpstreamTimeout):
        await task
    assert not world.waiters.is_awaited("j1")


async def test_how_long_it_waited_stands_in_the_access_line(world: World) -> None:
    world.make(max_wait="20ms")
    request = poll({"Prefer": "wait=30"})
    await world.policy(request, world.terminal)

    assert request.fields["waited_seconds"] >= 0.02


async def test_the_wall_clock_has_no_say_in_how_long(world: World, clock: FakeClock) -> None:
    task = await world.start()
    for at in (-1e9, 1e12):
        clock.at = at
        await turns()
    assert not task.done()

    world.waiters.wake("j1", None)
    await task


@pytest.mark.parametrize(
    ("headers", "is_repeated"),
    [
        ({}, True),
        ({"Prefer": "wait=30", "If-None-Match": '"0"'}, False),
        ({"Prefer": "wait=30", "If-None-Match": '"0"', "Job": "j2"}, False),
    ],
    ids=["plain", "waits", "passed on"],
)
async def test_what_wants_to_wait_is_decided_anew_each_time(
    world: World, headers: Headers, *, is_repeated: bool
) -> None:
    fields = dict(headers)
    request = poll(fields, job_id=fields.pop("Job", "j1"))
    response = await world.policy(request, world.terminal)

    assert (world.policy.step(request, response) is NOTHING) is is_repeated


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Prefer": "wait=90"}, "waits up to 60 s"),
        ({}, "does not wait: no poll"),
        ({"Prefer": "wait=x"}, "does not wait: no poll"),
    ],
)
def test_it_can_say_what_it_would_do(world: World, headers: Headers, said: str) -> None:
    assert world.policy.explain(poll(headers)).startswith(said)


def test_it_can_say_why_it_would_not_wait(world: World) -> None:
    world.kept = False

    assert "forbid" in world.policy.explain(poll({"Prefer": "wait=90"}))
