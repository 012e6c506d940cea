"""Job statuses from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
import structlog
from multidict import CIMultiDict

from gateway.core.credential import Principal
from gateway.core.error import UpstreamTimeout
from gateway.core.freshness import StoredResponse
from gateway.core.job import State
from gateway.core.message import BodyStream, Request, Response
from gateway.core.route import Match, Route, RouteTable
from gateway.policy.cache import ResponseCache
from gateway.settings.policy import CachePolicy
from gateway.store.memory.response import MemoryResponseStore
from gateway.store.response import ResponseStore
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, document, make_request
from tests.support.policy import (
    AbsentStore,
    Headers,
    SlowTerminal,
    Terminal,
    answer,
    sample,
    stream,
)
from tests.support.store import new_job

STATUS = Route("job-status", "/jobs/{job_id}/status", frozenset({"GET"}))
CANCEL = Route("job-cancel", "/jobs/{job_id}", frozenset({"DELETE"}))
ROUTES = RouteTable([STATUS, CANCEL])
RUNNING, COMPLETED = {"status": "running"}, {"status": "completed"}


def state_of(body: bytes) -> State | None:
    return State(orjson.loads(body)["status"]) if b"status" in body else None


class Numbered:
    """Statuses that count how many were made, so that a stored one is told from a new one."""

    def __init__(self, status: dict[str, Any] = RUNNING, headers: Headers = ()) -> None:
        self.made = 0
        self.status = status
        self.headers = headers

    def __call__(self) -> Response:
        self.made += 1
        return answer({**self.status, "made": self.made}, headers=self.headers)


class Cached:
    """The policy before a handler."""

    def __init__(self, metrics: Metrics, clock: FakeClock) -> None:
        self.metrics = metrics
        self.clock = clock
        self.store: ResponseStore = MemoryResponseStore(1024**2, metrics)
        self.terminal = Terminal(Numbered())
        self.watched: set[str] = set()
        self.make()

    def make(self, **policy: Any) -> None:
        settings = CachePolicy.model_validate(policy)
        self.policy = ResponseCache(
            settings,
            store=self.store,
            state_of=state_of,
            is_watched=self.watched.__contains__,
            route_of=ROUTES.match,
            metrics=self.metrics,
            now=self.clock,
        )

    async def ask(self, headers: Headers = (), **given: Any) -> Response:
        return await self.policy(poll(headers, **given), self.terminal)

    async def made(self, headers: Headers = (), **given: Any) -> int:
        """Which of the upstream's answers this request is given."""
        return int(document(await self.ask(headers, **given))["made"])

    def serve(self, respond: Callable[[], Response | BaseException]) -> None:
        self.terminal = Terminal(respond)

    def slow(self, respond: Callable[[], Response | BaseException]) -> SlowTerminal:
        self.terminal = terminal = SlowTerminal(respond)
        return terminal

    def start(self, **given: Any) -> asyncio.Task[Response]:
        return asyncio.create_task(self.ask(**given))


def poll(
    headers: Headers = (),
    *,
    job_id: str = "j1",
    owner: str | None = "alice",
    method: str = "GET",
    query: str = "",
    body: object = None,
) -> Request:
    match = Match(STATUS, {"job_id": job_id})
    target = f"/jobs/{job_id}/status{query}"
    return make_request(method, target, body, owner=owner, headers=headers, match=match)


def how(response: Response) -> str:
    return response.headers["Cache-Status"]


@pytest.fixture
def cached(metrics: Metrics, clock: FakeClock) -> Cached:
    return Cached(metrics, clock)


async def stale(cached: Cached) -> None:
    """Store the first status, and let it grow stale."""
    await cached.ask()
    cached.clock.at += 5


async def test_a_stored_status_is_served_and_says_so(cached: Cached, clock: FakeClock) -> None:
    cached.serve(Numbered(headers={"ETag": '"x"'}))
    first = await cached.ask()
    clock.at += 1.5
    second = await cached.ask()

    assert (how(first), how(second)) == ("gateway; fwd=uri-miss; stored", "gateway; hit; ttl=0")
    assert "Age" not in first.headers
    assert second.headers["Age"] == "1"
    assert (first.body, second.headers["ETag"]) == (second.body, '"x"')
    assert len(cached.terminal.requests) == 1


async def test_in_shadow_it_decides_and_counts_and_the_upstream_answers(
    cached: Cached, metrics: Metrics
) -> None:
    cached.make(mode="shadow")
    first, second = [await cached.made() for _ in range(2)]
    cached.clock.at += 5
    stale = await cached.ask({"Cache-Control": "only-if-cached"})

    assert (first, second, document(stale)["made"]) == (1, 2, 3)
    assert how(stale) == "gateway; fwd=bypass; stored"
    counts = {
        result: metrics.registry.get_sample_value(
            "gateway_cache_requests_total", {"result": result}
        )
        for result in ("shadow-miss", "shadow-hit", "hit", "miss", "stale")
    }
    assert counts == {"shadow-miss": 2, "shadow-hit": 1, "hit": 0, "miss": 0, "stale": 0}


async def test_in_shadow_a_failure_is_the_upstreams_own(cached: Cached) -> None:
    cached.make(mode="shadow", stale_if_error="1h")
    await stale(cached)
    cached.serve(lambda: UpstreamTimeout("slow"))

    with pytest.raises(UpstreamTimeout):
        await cached.ask()


@pytest.mark.parametrize(
    ("status", "policy", "ttl"),
    [
        (RUNNING, {}, 2),
        ({"status": "queued"}, {}, 2),
        (COMPLETED, {}, 300),
        ({"status": "failed"}, {"ttl": "7s"}, 7),
        (RUNNING, {"ttl_by_state": {"running": "9s"}}, 9),
        (COMPLETED, {"ttl_by_state": {"completed": "9s"}}, 9),
    ],
)
async def test_a_status_is_fresh_as_long_as_its_state_says(
    cached: Cached, clock: FakeClock, status: dict[str, Any], policy: dict[str, Any], ttl: float
) -> None:
    cached.make(**policy)
    cached.serve(Numbered(status))
    await cached.ask()

    clock.at += ttl - 0.5
    assert await cached.made() == 1
    clock.at += 0.5
    response = await cached.ask()
    assert how(response) == "gateway; fwd=stale; stored"


async def test_a_ttl_of_zero_stores_nothing(cached: Cached) -> None:
    cached.make(ttl_by_state={"running": 0})

    assert how(await cached.ask()) == "gateway; fwd=uri-miss"
    assert await cached.made() == 2


@pytest.mark.parametrize(
    "other",
    [{"job_id": "j2"}, {"query": "?x=1"}, {"headers": {"Accept": "text/html"}}, {"owner": "bob"}],
)
async def test_another_request_has_another_answer(cached: Cached, other: dict[str, Any]) -> None:
    await cached.ask()

    assert await cached.made(**other) == 2


async def test_without_a_key_is_nobodys_name(cached: Cached) -> None:
    await cached.ask(owner=None)
    request = poll()
    request.principal = Principal("k", "anonymous", frozenset())

    response = await cached.policy(request, cached.terminal)

    assert document(response)["made"] == 2


async def test_a_public_route_is_shared_by_all_owners(cached: Cached) -> None:
    cached.make(public=["job-status"])
    await cached.ask(owner="alice")

    assert await cached.made(owner="bob") == await cached.made(owner=None) == 1


async def test_no_accept_means_any(cached: Cached) -> None:
    await cached.ask()

    assert await cached.made({"Accept": "*/*"}) == 1


async def test_accept_encoding_makes_no_difference(cached: Cached) -> None:
    await cached.ask({"Accept-Encoding": "gzip"})

    assert await cached.made({"Accept-Encoding": "br"}) == 1


async def test_an_answer_that_varies_is_served_to_its_like_alone(cached: Cached) -> None:
    cached.serve(Numbered(headers={"Vary": "Accept-Language"}))
    await cached.ask({"Accept-Language": "de"})

    other = await cached.ask({"Accept-Language": "en"})

    assert how(other) == "gateway; fwd=vary-miss; stored"
    assert await cached.made({"Accept-Language": "de"}) == 1
    assert await cached.made({"Accept-Language": "en"}) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "a=b"},
        {"Authorization": "Basic x"},
        {"If-Match": '"x"'},
        {"If-Unmodified-Since": "x"},
        {"X-Original-URL": "/other"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"Cache-Control": "no-store"},
        {"Connection": "Accept"},
    ],
)
async def test_a_request_that_bypasses_neither_reads_nor_stores(
    cached: Cached, headers: Headers
) -> None:
    assert await cached.made(headers) == 1
    await cached.ask()

    response = await cached.ask(headers)

    assert document(response)["made"] == 3
    assert how(response) == "gateway; fwd=bypass"


async def test_a_request_with_a_body_bypasses(cached: Cached) -> None:
    assert how(await cached.ask(body=b"x")) == "gateway; fwd=bypass"


async def test_how_long_the_connection_lasts_is_no_reason_to_bypass(cached: Cached) -> None:
    assert how(await cached.ask({"Connection": "keep-alive"})) == "gateway; fwd=uri-miss; stored"


async def test_another_method_is_passed_on(cached: Cached) -> None:
    await cached.ask()

    assert how(await cached.ask(method="OPTIONS")) == "gateway; fwd=method"
    assert await cached.made() == 1


@pytest.mark.parametrize("said", ["no-cache", "max-age=0", "max-age=soon"])
async def test_a_client_may_ask_anew_and_what_it_gets_is_stored(cached: Cached, said: str) -> None:
    await cached.ask()
    cached.clock.at += 1

    response = await cached.ask({"Cache-Control": said})

    assert how(response) == "gateway; fwd=request; stored"
    assert await cached.made() == 2


async def test_an_answer_young_enough_for_the_client_is_served(cached: Cached) -> None:
    await cached.ask()
    cached.clock.at += 1

    assert await cached.made({"Cache-Control": "max-age=1"}) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "no-store"},
        {"Cache-Control": "private, max-age=60"},
        {"Cache-Control": "no-cache"},
        {"Cache-Control": "max-age=0"},
        {"Expires": "0"},
        {"Set-Cookie": "a=b"},
        {"Vary": "*"},
        {"Content-Type": "text/html"},
    ],
)
async def test_what_may_not_be_kept_is_not(cached: Cached, headers: Headers) -> None:
    cached.serve(Numbered(headers=headers))

    assert how(await cached.ask()) == "gateway; fwd=uri-miss"
    assert await cached.made() == 2


async def test_other_json_types_are_kept(cached: Cached) -> None:
    cached.serve(Numbered(headers={"Content-Type": "application/job+json; charset=utf-8"}))

    assert how(await cached.ask()) == "gateway; fwd=uri-miss; stored"


@pytest.mark.parametrize(("code", "body"), [(200, {"x": 1}), (202, RUNNING), (404, RUNNING)])
async def test_only_a_200_that_shows_a_state_is_kept(cached: Cached, code: int, body: Any) -> None:
    cached.serve(lambda: answer(body, code))
    await cached.ask()

    assert how(await cached.ask()) == "gateway; fwd=uri-miss"


async def test_the_upstream_may_allow_less_time_not_more(cached: Cached, clock: FakeClock) -> None:
    cached.serve(Numbered(COMPLETED, {"Cache-Control": "max-age=10", "Age": "4"}))
    await cached.ask()

    clock.at += 5
    response = await cached.ask()
    clock.at += 1

    assert (how(response), response.headers["Age"]) == ("gateway; hit; ttl=1", "9")
    assert await cached.made() == 2


async def test_the_upstream_cannot_make_the_policys_time_longer(
    cached: Cached, clock: FakeClock
) -> None:
    cached.serve(Numbered(RUNNING, {"Cache-Control": "max-age=600"}))
    await cached.ask()
    clock.at += 2

    assert await cached.made() == 2


async def test_what_belongs_to_one_answer_is_not_stored(cached: Cached) -> None:
    cached.serve(
        Numbered(
            headers={
                "X-Request-ID": "theirs-1",
                "RateLimit": '"x";r=1',
                "X-RateLimit-Remaining": "1",
                "Cache-Status": "inner; hit",
                "Server-Timing": "x",
            }
        )
    )
    first, second = await cached.ask(), await cached.ask()

    assert how(first) == "inner; hit, gateway; fwd=uri-miss; stored"
    names = {"content-type", "server-timing", "etag", "age", "cache-status"}
    assert {name.lower() for name in second.headers} == names


async def test_the_gateways_own_resources_are_no_business_of_the_cache(cached: Cached) -> None:
    own = Match(Route("webhooks", "/webhooks", gateway=True))

    for method in ("GET", "POST"):
        request = make_request(method, "/webhooks", match=own)
        assert "Cache-Status" not in (await cached.policy(request, cached.terminal)).headers


async def test_switched_off_nothing_is_cached(cached: Cached) -> None:
    cached.make(enabled=False)
    await cached.ask()

    assert "Cache-Status" not in (await cached.ask()).headers
    assert len(cached.terminal.requests) == 2


async def test_results_are_counted_and_logged(cached: Cached, metrics: Metrics) -> None:
    requests = [poll(), poll(), poll({"Cookie": "x"})]
    for request in requests:
        await cached.policy(request, cached.terminal)

    assert [request.fields["cache"] for request in requests] == ["miss", "hit", "bypass"]
    for result in ("miss", "hit", "bypass"):
        assert sample(metrics, "cache_requests_total", result=result) == 1


# --- entity tags ----------------------------------------------------------------------------


async def test_a_status_without_an_entity_tag_is_given_one(cached: Cached) -> None:
    first, second = await cached.ask(), await cached.ask()

    assert first.headers["ETag"].startswith('"gw-')
    assert first.headers["ETag"] == second.headers["ETag"]


async def test_the_tag_says_whether_the_status_changed(cached: Cached, clock: FakeClock) -> None:
    tags = []
    for _ in range(2):
        tags.append((await cached.ask()).headers["ETag"])
        clock.at += 5

    assert tags[0] != tags[1]


@pytest.mark.parametrize("late_seconds", [0, 5])
async def test_a_client_that_has_the_status_is_told_so(cached: Cached, late_seconds: float) -> None:
    cached.serve(lambda: answer(RUNNING))
    tag = (await cached.ask()).headers["ETag"]
    cached.clock.at += late_seconds

    response = await cached.ask({"If-None-Match": tag})

    assert (response.status, response.body, response.headers["ETag"]) == (304, b"", tag)
    assert "Content-Type" not in response.headers
    assert len(cached.terminal.requests) == (2 if late_seconds else 1)


async def test_of_a_status_the_upstream_is_asked_for_the_whole(cached: Cached) -> None:
    await cached.ask({"If-None-Match": '"x"', "Range": "bytes=0-1"})

    assert not {"If-None-Match", "Range"} & set(cached.terminal.headers)
    assert (await cached.ask()).status == 200


async def test_even_a_status_that_is_not_kept_has_a_tag(cached: Cached) -> None:
    cached.make(ttl_by_state={"running": 0})
    cached.serve(lambda: answer(RUNNING))
    tag = (await cached.ask()).headers["ETag"]

    response = await cached.ask({"If-None-Match": tag})

    assert (response.status, how(response)) == (304, "gateway; fwd=uri-miss")


# --- events -----------------------------------------------------------------------------------


async def test_a_jobs_end_removes_its_stored_answers(cached: Cached) -> None:
    await cached.ask()
    await cached.ask(owner="bob")
    await cached.ask(job_id="j2")
    change = new_job("j1")
    ended = replace(change, job=replace(change.job, state=State.COMPLETED))

    assert await cached.policy.coming(ended) == 2

    assert how(await cached.ask()) == "gateway; fwd=uri-miss; stored"
    assert await cached.made(job_id="j2") == 3


async def test_a_jobs_event_makes_its_stored_answers_stale(cached: Cached) -> None:
    await cached.ask()

    assert await cached.policy.coming(new_job("j1")) == 1

    assert how(await cached.ask()) == "gateway; fwd=stale; stored"


async def test_a_client_that_cancels_sees_it_in_its_next_poll(cached: Cached) -> None:
    await cached.ask()
    cancel = make_request("DELETE", "/jobs/j1", match=Match(CANCEL, {"job_id": "j1"}))
    await cached.policy(cancel, Terminal())

    assert await cached.made() == 2


async def test_a_cancel_is_seen_although_http_caching_is_off(cached: Cached) -> None:
    cached.make(http={"enabled": False})
    await cached.ask()
    cancel = make_request("DELETE", "/jobs/j1", match=Match(CANCEL, {"job_id": "j1"}))
    await cached.policy(cancel, Terminal())

    assert await cached.made() == 2


async def test_a_cancel_that_fails_changes_nothing(cached: Cached) -> None:
    await cached.ask()
    cancel = make_request("DELETE", "/jobs/j1", match=Match(CANCEL, {"job_id": "j1"}))
    await cached.policy(cancel, Terminal(lambda: answer(status=409)))

    assert await cached.made() == 1


@pytest.mark.parametrize("code", [404, 410])
async def test_a_job_the_upstream_no_longer_knows_is_forgotten(cached: Cached, code: int) -> None:
    await stale(cached)
    cached.serve(lambda: answer(status=code))
    await cached.ask()

    assert how(await cached.ask()) == "gateway; fwd=uri-miss"


@pytest.mark.parametrize("terminal", [True, False], ids=["end", "event"])
async def test_an_answer_asked_for_before_an_event_is_neither_stored_nor_served_after_it(
    cached: Cached, *, terminal: bool
) -> None:
    upstream = cached.slow(Numbered())
    task = cached.start()
    await upstream.arrived()

    await cached.policy.purge("job:j1", terminal=terminal)
    upstream.gate.set()

    assert document(await task)["made"] == 2
    assert await cached.made() == 2


async def test_who_shared_a_request_is_not_given_its_answer_after_an_event(cached: Cached) -> None:
    upstream = cached.slow(Numbered())
    tasks = [cached.start() for _ in range(3)]
    await upstream.arrived()
    await asyncio.sleep(0)  # the others join

    await cached.policy.purge("job:j1", terminal=False)
    upstream.gate.set()

    assert [document(response)["made"] for response in await asyncio.gather(*tasks)] == [2, 2, 2]
    assert len(upstream.requests) == 2


async def test_events_without_end_keep_nobody_asking(cached: Cached) -> None:
    upstream = Terminal(lambda: answer(RUNNING))

    async def eventful(request: Request) -> Response:
        await cached.policy.purge("job:j1", terminal=False)
        return await upstream(request)

    response = await cached.policy(poll(), eventful)

    assert (response.status, len(upstream.requests)) == (200, 2)


async def test_what_an_outdated_answer_holds_open_is_closed(
    cached: Cached,
) -> None:
    closed: list[bool] = []
    first = stream(b"{}")
    first.closers.append(lambda: closed.append(True))
    bodies: list[bytes | BodyStream] = [first, b"{}"]
    upstream = cached.slow(lambda: Response(200, CIMultiDict(), bodies.pop(0)))
    task = cached.start()
    await upstream.arrived()

    await cached.policy.purge("job:j1", terminal=False)
    upstream.gate.set()

    assert ((await task).body, closed) == (b"{}", [True])


async def test_who_asks_after_an_event_does_not_share_an_older_request(cached: Cached) -> None:
    terminal = cached.slow(Numbered())
    before = cached.start()
    await terminal.arrived()
    await cached.policy.purge("job:j1", terminal=False)

    after = cached.start()
    await terminal.arrived(2)
    terminal.gate.set()

    assert [document(await each)["made"] for each in (before, after)] == [2, 2]
    assert len(terminal.requests) == 2


async def test_an_event_of_another_job_outdates_nothing(cached: Cached) -> None:
    terminal = cached.slow(Numbered())
    task = cached.start()
    await terminal.arrived()
    await cached.policy.purge("job:j2")
    terminal.gate.set()

    assert how(await task) == "gateway; fwd=uri-miss; stored"


class PurgedWhileStoring(MemoryResponseStore):
    """An event comes while the answer is on its way into the store."""

    cache: ResponseCache
    terminal = True

    async def store(self, tag: str, key: str, response: StoredResponse) -> None:
        await self.cache.purge("job:j1", terminal=self.terminal)
        await super().store(tag, key, response)


@pytest.mark.parametrize(("ending", "kept"), [("end", []), ("event", [False])])
async def test_an_event_while_the_answer_is_being_stored_counts_too(
    cached: Cached, clock: FakeClock, ending: str, kept: list[bool]
) -> None:
    cached.store = store = PurgedWhileStoring(1024**2, cached.metrics)
    cached.make()
    store.cache, store.terminal = cached.policy, ending == "end"
    request = poll()

    await cached.policy(request, cached.terminal)

    found = await store.lookup("job:j1", cached.policy._rule.key(request))
    assert [each.terms.is_fresh(clock.at) for each in found] == kept


# --- a slow upstream --------------------------------------------------------------------------


async def test_a_stale_answer_is_served_while_a_slow_upstream_thinks(
    cached: Cached, metrics: Metrics
) -> None:
    cached.make(slow_upstream=0)
    await stale(cached)
    terminal = cached.slow(Numbered(COMPLETED))

    response = await cached.ask()

    assert how(response) == "gateway; hit; ttl=-3; detail=slow-upstream"
    assert (document(response)["status"], response.headers["Age"]) == ("running", "5")
    assert sample(metrics, "cache_requests_total", result="stale") == 1
    terminal.gate.set()
    await cached.policy.close()
    assert document(await cached.ask())["status"] == "completed"
    assert len(terminal.requests) == 1


async def test_polls_of_a_slow_upstream_share_one_request(cached: Cached) -> None:
    cached.make(slow_upstream=0)
    await stale(cached)
    terminal = cached.slow(Numbered())

    for _ in range(3):
        assert how(await cached.ask()) == "gateway; hit; ttl=-3; detail=slow-upstream"
    await terminal.arrived()
    terminal.gate.set()
    await cached.policy.close()

    assert len(terminal.requests) == 1


async def test_a_quick_upstream_is_waited_for(cached: Cached) -> None:
    await stale(cached)

    assert how(await cached.ask()) == "gateway; fwd=stale; stored"


async def test_a_stale_answer_is_not_served_after_the_jobs_end(cached: Cached) -> None:
    cached.make(slow_upstream=0)
    await stale(cached)
    terminal = cached.slow(Numbered(COMPLETED))
    request = poll()

    async def ended(request: Request) -> Response:
        await cached.policy.purge("job:j1")
        return await terminal(request)

    task = asyncio.create_task(cached.policy(request, ended))
    await terminal.arrived()
    for _ in range(10):  # turns of the loop, in which a timer of 0 s has long rung
        await asyncio.sleep(0)

    assert not task.done()
    terminal.gate.set()
    assert document(await task)["status"] == "completed"


@pytest.mark.parametrize(
    ("headers", "late_seconds"), [({"Cache-Control": "must-revalidate"}, 5), ({}, 303)]
)
async def test_a_stale_answer_is_not_served_against_the_rules(
    cached: Cached, clock: FakeClock, headers: Headers, late_seconds: float
) -> None:
    cached.make(slow_upstream=0)
    cached.serve(Numbered(headers=headers))
    await cached.ask()
    clock.at += late_seconds
    terminal = cached.slow(Numbered(COMPLETED))
    task = cached.start()
    await terminal.arrived()
    terminal.gate.set()

    assert how(await task) == "gateway; fwd=stale; stored"


async def test_a_failure_in_the_background_is_nobodys(cached: Cached) -> None:
    cached.make(slow_upstream=0)
    await stale(cached)
    terminal = cached.slow(lambda: UpstreamTimeout("x"))
    await cached.ask()

    terminal.gate.set()
    await cached.policy.close()

    terminal = cached.slow(Numbered())
    assert how(await cached.ask()) == "gateway; hit; ttl=-3; detail=slow-upstream"
    terminal.gate.set()
    await cached.policy.close()


async def test_a_stream_nobody_waits_for_is_closed(cached: Cached) -> None:
    cached.make(slow_upstream=0)
    await stale(cached)
    closed: list[bool] = []
    large = answer()
    large.body = body = stream(b"x")
    body.closers.append(lambda: closed.append(True))
    terminal = cached.slow(lambda: large)
    await cached.ask()

    terminal.gate.set()
    await cached.policy.close()

    assert closed == [True]


async def test_a_client_that_leaves_does_not_end_its_request(cached: Cached) -> None:
    terminal = cached.slow(Numbered())
    task = cached.start()
    await terminal.arrived()
    task.cancel()
    await asyncio.wait({task})

    terminal.gate.set()
    await cached.policy.close()

    assert task.cancelled()
    assert await cached.made() == 1


# --- equal requests at once -------------------------------------------------------------------


async def test_equal_requests_at_once_share_one(cached: Cached, metrics: Metrics) -> None:
    terminal = cached.slow(Numbered())
    leader = cached.start()
    await terminal.arrived()
    followers = [cached.start() for _ in range(3)]
    await asyncio.sleep(0)  # each follower is now waiting
    terminal.gate.set()

    responses = [await task for task in (leader, *followers)]

    assert [document(response)["made"] for response in responses] == [1, 1, 1, 1]
    assert [how(response) for response in responses[1:]] == ["gateway; fwd=uri-miss; collapsed"] * 3
    assert sample(metrics, "cache_requests_total", result="coalesced") == 3
    assert len(terminal.requests) == 1


async def test_requests_of_two_owners_are_not_equal(cached: Cached) -> None:
    terminal = cached.slow(Numbered())
    tasks = [cached.start(owner="alice"), cached.start(owner="bob")]
    await terminal.arrived(2)
    terminal.gate.set()

    assert {document(await task)["made"] for task in tasks} == {1, 2}


def _called(respond: Callable[[], Response | BaseException]) -> Response | BaseException:
    return respond()


async def follow_one_that(cached: Cached, respond: Callable[[], Response | BaseException]) -> None:
    """Let a request follow one whose first answer is `respond`'s, and the next a status."""
    answers = iter((respond, Numbered()))
    terminal = cached.slow(lambda: _called(next(answers)))
    leader = cached.start()
    await terminal.arrived()
    follower = cached.start()
    await asyncio.sleep(0)  # the follower is now waiting
    terminal.gate.set()
    await asyncio.wait({leader})

    assert document(await follower)["made"] == 1
    assert how(await follower) == "gateway; fwd=uri-miss; stored"
    assert len(terminal.requests) == 2
    if leader.exception() is None:
        assert how(leader.result()) == "gateway; fwd=uri-miss"


async def test_a_failure_is_not_shared(cached: Cached) -> None:
    await follow_one_that(cached, lambda: UpstreamTimeout("x"))


async def test_an_error_answer_is_not_shared(cached: Cached) -> None:
    await follow_one_that(cached, lambda: answer({"detail": "x"}, 503))


async def test_a_stream_is_not_shared(cached: Cached) -> None:
    large = answer()
    large.body = body = stream(b"x")
    await follow_one_that(cached, lambda: large)
    await body.aclose()


async def test_an_answer_that_varies_is_not_shared_with_others(cached: Cached) -> None:
    terminal = cached.slow(Numbered(headers={"Vary": "Accept-Language"}))
    leader = cached.start(headers={"Accept-Language": "de"})
    await terminal.arrived()
    follower = cached.start(headers={"Accept-Language": "en"})
    await asyncio.sleep(0)  # the follower is now waiting
    terminal.gate.set()
    await leader

    assert document(await follower)["made"] == 2


async def test_who_asks_anew_does_not_share(cached: Cached) -> None:
    terminal = cached.slow(Numbered())
    tasks = [cached.start(), cached.start(headers={"Cache-Control": "no-cache"})]
    await terminal.arrived(2)
    terminal.gate.set()

    assert {document(await task)["made"] for task in tasks} == {1, 2}


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Cookie": "x"}])
async def test_an_error_says_how_it_was_asked_for(cached: Cached, headers: Headers) -> None:
    cached.serve(lambda: UpstreamTimeout("x"))

    with pytest.raises(UpstreamTimeout) as caught:
        await cached.ask(headers)

    why = "bypass" if headers else "uri-miss"
    assert caught.value.headers == {"Cache-Status": f"gateway; fwd={why}"}


async def test_a_store_that_is_away_is_a_miss(cached: Cached, metrics: Metrics) -> None:
    cached.store = AbsentStore()
    cached.make()
    with structlog.testing.capture_logs() as lines:
        response = await cached.ask()
        purged = await cached.policy.purge("job:j1")
        await cached.policy.purge("job:j1", terminal=False)

    assert (how(response), purged) == ("gateway; fwd=uri-miss", 0)
    assert [line["operation"] for line in lines] == ["lookup", "store", "forget", "forget"]
    assert sample(metrics, "store_errors_total", store="responses") == 4


# --- jobs that are watched ------------------------------------------------------------------------


async def test_all_who_take_json_share_one_status(cached: Cached) -> None:
    for accept in ("*/*", "application/json", "application/json, text/plain, */*"):
        assert await cached.made({"Accept": accept}) == 1
    assert await cached.made({"Accept": "text/csv, */*;q=0.1"}) == 2


async def test_what_is_no_json_is_not_shared_with_those_who_take_nothing_else(
    cached: Cached,
) -> None:
    fields = {"Content-Type": "text/csv", "Cache-Control": "max-age=60"}
    cached.serve(lambda: answer(b"running", headers=fields))
    await cached.ask({"Accept": "*/*"})

    assert how(await cached.ask({"Accept": "application/json"})) == "gateway; fwd=uri-miss"
    await cached.ask({"Accept": "text/csv"})
    assert how(await cached.ask({"Accept": "text/csv"})) == "gateway; hit; ttl=60"


@pytest.mark.parametrize(
    ("status", "policy", "fresh_seconds"),
    [
        (RUNNING, {"watched": {"max_age": 20}}, 20),
        (RUNNING, {"watched": {"max_age": 20}, "ttl_by_state": {"running": 60}}, 60),
        (RUNNING, {"watched": {"max_age": 0}, "ttl_by_state": {"running": 3}}, 3),
        (COMPLETED, {"watched": {"max_age": 20}, "ttl_by_state": {"completed": 5}}, 5),
    ],
)
async def test_a_watched_jobs_status_is_fresh_until_its_next_change_is_heard_of(
    cached: Cached,
    clock: FakeClock,
    status: dict[str, Any],
    policy: dict[str, Any],
    fresh_seconds: float,
) -> None:
    cached.watched.add("j1")
    cached.make(**policy)
    cached.serve(Numbered(status))
    await cached.ask()

    clock.at += fresh_seconds - 0.5
    assert await cached.made() == 1
    clock.at += 1
    assert await cached.made() == 2


async def test_a_watched_jobs_status_is_not_kept_where_the_policy_says_never(
    cached: Cached,
) -> None:
    cached.watched.add("j1")
    cached.make(ttl_by_state={"running": 0})

    assert [await cached.made() for _ in range(2)] == [1, 2]


async def test_the_upstream_may_allow_less_time_for_a_watched_job_too(
    cached: Cached, clock: FakeClock
) -> None:
    cached.watched.add("j1")
    cached.serve(Numbered(headers={"Cache-Control": "max-age=1"}))
    await cached.ask()
    clock.at += 1.5

    assert await cached.made() == 2


def own_question() -> Request:
    return poll({"Accept": "application/json"}, owner=None)


async def learn(cached: Cached, made: int, headers: Headers = ()) -> bool:
    response = answer({**RUNNING, "made": made}, headers=headers)
    return await cached.policy.learn(own_question(), response, cached.clock.at)


async def test_what_the_gateway_asked_for_itself_answers_polls(cached: Cached) -> None:
    cached.make(public=["job-status"])
    assert await learn(cached, 9)

    first = await cached.ask({"Accept": "*/*"})
    again = await cached.ask({"If-None-Match": first.headers["ETag"]})

    assert (document(first)["made"], first.headers["Age"]) == (9, "0")
    assert (again.status, cached.terminal.requests) == (304, [])


async def test_what_was_asked_for_earlier_neither_replaces_it_nor_is_served(
    cached: Cached,
) -> None:
    cached.make(public=["job-status"])
    upstream = cached.slow(Numbered())
    task = cached.start()
    await upstream.arrived()
    await learn(cached, 9)
    upstream.gate.set()

    assert document(await task)["made"] == 9
    assert await cached.made() == 9
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "policy", [{"enabled": False}, {"mode": "shadow"}, {"watched": {"max_age": 0}}]
)
async def test_nothing_is_learnt_where_polls_are_not_answered_with_it(
    cached: Cached, policy: dict[str, Any]
) -> None:
    cached.make(public=["job-status"], **policy)

    assert not await learn(cached, 9)


async def test_what_the_upstream_forbids_to_keep_is_not_learnt(cached: Cached) -> None:
    cached.make(public=["job-status"])

    assert not await learn(cached, 9, {"Cache-Control": "no-store"})
    assert await cached.made() == 1


async def test_a_change_elsewhere_ends_what_is_older_and_nothing_else(
    cached: Cached, clock: FakeClock
) -> None:
    cached.make(public=["job-status"])
    await learn(cached, 8)
    clock.at += 1
    change = new_job("j1", at=clock.at)

    await cached.policy.heard(own_question(), change)
    assert await cached.made() == 1
    await learn(cached, 9)
    await cached.policy.heard(own_question(), change)
    assert await cached.made() == 9


@pytest.mark.parametrize(
    ("given", "policy", "common"),
    [
        ({}, {}, True),
        ({"query": "?x=1"}, {}, False),
        ({"headers": {"Accept": "text/html"}}, {}, False),
        ({}, {"public": []}, False),
    ],
)
def test_a_status_is_common_where_nothing_tells_its_askers_apart(
    cached: Cached, given: dict[str, Any], policy: dict[str, Any], *, common: bool
) -> None:
    cached.make(**{"public": ["job-status"], **policy})

    assert cached.policy.is_common(poll(**given)) is common


@pytest.mark.parametrize(
    ("given", "policy", "kept"),
    [
        ({}, {}, True),
        ({"headers": {"Cookie": "a=b"}}, {}, False),
        ({"headers": {"Cache-Control": "no-store"}}, {}, False),
        ({}, {"enabled": False}, False),
        ({}, {"mode": "shadow"}, False),
    ],
)
def test_it_says_what_it_keeps(
    cached: Cached, given: dict[str, Any], policy: dict[str, Any], *, kept: bool
) -> None:
    cached.make(**policy)

    assert cached.policy.keeps(poll(**given)) is kept
