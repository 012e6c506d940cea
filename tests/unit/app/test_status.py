"""The gateway's own questions about jobs' statuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.app.status import Statuses
from gateway.core.contract import Contract, ContractRoute
from gateway.core.error import NotCached
from gateway.core.job import JobChange, State
from gateway.core.message import Request, Response
from gateway.core.route import RouteTable
from gateway.policy.cache import ResponseCache
from gateway.settings.policy import CachePolicy
from gateway.store.memory.response import MemoryResponseStore
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock
from tests.support.policy import Terminal, answer, stream
from tests.support.store import new_job, next_change

CONTRACT = Contract(
    [ContractRoute("job-status", "/jobs/{job_id}", frozenset({"GET"}))],
    {"id": "id", "state": "status"},
    {"running": ["*"]},
)


class World:
    """Statuses of an upstream that is all running jobs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.upstream = Terminal(lambda: answer({"status": "working"}))
        self.policy = CachePolicy(public=("job-status",))
        routes = RouteTable(CONTRACT.routes)
        metrics = Metrics()
        self.store = MemoryResponseStore(1024**2, metrics)
        self.cache = ResponseCache(
            self.policy,
            store=self.store,
            state_of=lambda _: State.RUNNING,
            is_watched=lambda _: True,
            route_of=routes.match,
            metrics=metrics,
            now=self.clock,
        )
        self.statuses = Statuses(
            cache=self.cache,
            upstream=self.upstream,
            contract=CONTRACT,
            routes=routes,
            host="upstream.example",
            policy=lambda: self.policy,
            now=self.clock,
        )

    def seen(self, body: Any, *, events: bool = False, **fields: Any) -> JobChange:
        """A look at the job, now."""
        change = next_change(new_job("j1").job, self.clock.at, state=State.RUNNING, **fields)
        return replace(change, answer=answer(body), events=change.events if events else ())

    async def known(self) -> Response | None:
        """What polls are answered with, None when the upstream would be asked."""
        try:
            return await self.statuses.fetch("j1", asks=False)
        except NotCached:
            return None


@pytest.fixture
def world() -> World:
    return World()


async def test_the_question_is_the_gateways_own_and_asks_for_json(world: World) -> None:
    assert await world.statuses.fetch("j1") is not None

    request: Request
    [request] = world.upstream.requests
    assert (request.target, request.client, request.principal) == ("/jobs/j1", "gateway", None)
    assert request.headers["Accept"] == "application/json"


async def test_where_owners_have_answers_of_their_own_nothing_is_asked_or_learnt(
    world: World,
) -> None:
    world.policy = CachePolicy()

    assert await world.statuses.fetch("j1") is None
    assert not await world.statuses.learn(world.seen({"n": 1}))
    assert world.upstream.requests == []


async def test_a_stream_is_nobodys_answer_and_closed(world: World) -> None:
    body = stream(b"{}")
    closed: list[bool] = []
    body.closers.append(lambda: closed.append(True))
    world.upstream.respond = lambda: replace(answer(), body=body)

    assert await world.statuses.fetch("j1") is None
    assert closed == [True]


async def test_what_was_seen_answers_without_a_question(world: World) -> None:
    assert await world.known() is None
    assert await world.statuses.learn(world.seen({"n": 1}))

    known = await world.known()
    assert known is not None
    assert known.body == b'{"n":1}'
    assert world.upstream.requests == []


async def test_what_brought_no_answer_is_not_learnt(world: World) -> None:
    assert not await world.statuses.learn(replace(world.seen({}), answer=None))


async def test_the_same_seen_again_is_not_written_again_for_half_its_time(world: World) -> None:
    await world.statuses.learn(world.seen({"n": 1}))
    for seconds, kept in ((9.0, False), (1.0, True)):
        world.clock.at += seconds
        await world.store.purge("job:j1")
        assert await world.statuses.learn(world.seen({"n": 1}))
        assert (await world.known() is not None) is kept


@pytest.mark.parametrize("news", ["another body", "an event"])
async def test_news_are_written_at_once(world: World, news: str) -> None:
    await world.statuses.learn(world.seen({"n": 1}))
    await world.store.purge("job:j1")
    body = {"n": 2} if news == "another body" else {"n": 1}
    await world.statuses.learn(world.seen(body, events=news == "an event", stage="next"))

    assert await world.known() is not None


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_nothing_is_remembered_of_jobs_that_ended(world: World, where: str) -> None:
    await world.statuses.learn(world.seen({"n": 1}))
    assert world.statuses._learned
    ended = next_change(new_job("j1").job, world.clock.at, state=State.COMPLETED)

    await (world.statuses.learn(ended) if where == "here" else world.statuses.heard(ended))

    assert not world.statuses._learned
