"""Pages of an owner's jobs from memory: until one of its jobs changes, and never another's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.error import InvalidRequest
from gateway.core.job import EventType, Job, JobChange, JobEvent, State
from gateway.core.message import Request, Response
from gateway.core.route import Match, Route, RouteTable
from gateway.policy.cache import ResponseCache
from gateway.settings.contract import HISTORY
from gateway.settings.policy import CachePolicy
from gateway.store.memory.response import MemoryResponseStore
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, document, make_request
from tests.support.policy import SlowTerminal, Terminal, answer
from tests.support.store import new_job

PATH = "/api/v1/jobs/history"
ROUTE = Route(HISTORY, PATH, frozenset({"GET"}), gateway=True)
TTL_SECONDS = 300.0


class Cached:
    """The policy before a handler that counts its answers."""

    def __init__(self, metrics: Metrics, clock: FakeClock) -> None:
        self.metrics, self.clock = metrics, clock
        self.made = 0
        self.terminal = Terminal(self._answer)
        self.make()

    def make(self, **policy: Any) -> None:
        self.policy = ResponseCache(
            CachePolicy.model_validate({"ttl": TTL_SECONDS} | policy),
            store=MemoryResponseStore(1024**2, self.metrics),
            state_of=lambda _: None,
            is_watched=lambda _: False,
            route_of=RouteTable([ROUTE]).match,
            metrics=self.metrics,
            now=self.clock,
        )

    def _answer(self) -> Response:
        self.made += 1
        return answer({"jobs": [], "made": self.made})

    async def page(self, query: str = "", owner: str | None = "alice", **headers: str) -> Response:
        return await self.policy(history(query, owner, headers=headers), self.terminal)

    async def number(self, query: str = "", owner: str | None = "alice") -> int:
        """Which of the handler's answers this request is given."""
        return int(document(await self.page(query, owner))["made"])

    async def change(self, owner: str = "alice", *, with_event: bool = True) -> None:
        job: Job = replace(new_job().job, owner=owner, state=State.RUNNING)
        event = JobEvent(EventType.PROGRESS, 1, self.clock(), State.QUEUED)
        await self.policy.changed(JobChange(job, job, (event,) if with_event else ()))


def history(query: str = "", owner: str | None = "alice", *, headers: Any = ()) -> Request:
    target = PATH + query
    return make_request("GET", target, owner=owner, headers=headers, match=Match(ROUTE))


@pytest.fixture
def cached(metrics: Metrics, clock: FakeClock) -> Cached:
    return Cached(metrics, clock)


async def test_a_page_is_answered_from_memory_and_says_so(cached: Cached) -> None:
    first, second = await cached.page(), await cached.page()
    assert first.headers["Cache-Status"] == "gateway; fwd=uri-miss; stored"
    assert second.headers["Cache-Status"] == "gateway; hit; ttl=300"
    assert (document(second), cached.made) == (document(first), 1)


async def test_each_query_is_a_page_of_its_own(cached: Cached) -> None:
    numbers = [await cached.number(query) for query in ("", "?state=failed", "?limit=1", "")]
    assert numbers == [1, 2, 3, 1]


@pytest.mark.parametrize("public", [[], [HISTORY]])
async def test_no_owner_is_given_anothers_page(cached: Cached, public: list[str]) -> None:
    cached.make(public=public)
    owners = ["alice", "bob", None, "alice", "bob", None]
    assert [await cached.number(owner=owner) for owner in owners] == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("with_event", [True, False])
async def test_any_change_of_a_job_ends_every_page_of_its_owner_and_no_others(
    cached: Cached,
    with_event: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    for query in ("", "?limit=1"):
        await cached.number(query)
    await cached.number(owner="bob")
    await cached.change(with_event=with_event)
    assert [await cached.number(query) for query in ("", "?limit=1")] == [4, 5]
    assert await cached.number(owner="bob") == 3


async def test_page_asked_for_before_a_change_is_not_kept_after_it(cached: Cached) -> None:
    slow = SlowTerminal(cached._answer)
    asking = asyncio.create_task(cached.policy(history(), slow))
    await slow.arrived()
    await cached.change()
    slow.gate.set()
    await asking
    assert await cached.number() == 2


async def test_page_that_nothing_changed_is_asked_for_again_after_the_ttl(
    cached: Cached, clock: FakeClock
) -> None:
    await cached.number()
    clock.at += TTL_SECONDS - 1
    assert await cached.number() == 1
    clock.at += 1
    assert await cached.number() == 2


async def test_client_that_has_the_page_is_told_so(cached: Cached) -> None:
    tag = (await cached.page()).headers["ETag"]
    again = await cached.page(**{"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    await cached.change()
    assert (await cached.page(**{"If-None-Match": tag})).status == 200


async def test_client_may_ask_past_the_cache(cached: Cached) -> None:
    await cached.page()
    answer = await cached.page(**{"Cache-Control": "no-cache"})
    assert document(answer)["made"] == 2


async def test_key_as_a_bearer_token_makes_no_difference(cached: Cached) -> None:
    for _ in range(2):
        await cached.page(Authorization="Bearer key")
    assert cached.made == 1


async def test_what_is_refused_is_not_kept(cached: Cached) -> None:
    failing = Terminal(lambda: InvalidRequest("no such state"))
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            await cached.policy(history("?state=x"), failing)
    assert len(failing.requests) == 2


@pytest.mark.parametrize("policy", [{"enabled": False}, {"ttl": 0}])
async def test_pages_are_not_kept_when_the_policy_says_so(
    cached: Cached, policy: dict[str, Any]
) -> None:
    cached.make(**policy)
    assert [await cached.number(), await cached.number()] == [1, 2]
