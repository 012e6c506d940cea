"""Any read, by the headers of its upstream (RFC 9111)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.core.error import NotCached, UpstreamRefused
from gateway.core.http_date import format_http_date
from gateway.core.message import BodyStream, Request, Response
from gateway.core.route import Match, Route, RouteTable
from gateway.policy.cache import ResponseCache
from gateway.settings.policy import CachePolicy
from gateway.store.memory.response import MemoryResponseStore
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, make_request
from tests.support.policy import Headers, SlowTerminal, Terminal, answer, sample, stream

REPORT = Route("other", "/reports/{report_id}")
ROUTES = RouteTable([REPORT])
FOR_A_MINUTE = {"Cache-Control": "max-age=60"}


class Site:
    """A cache before an upstream whose every answer has a number."""

    def __init__(self, metrics: Metrics, clock: FakeClock) -> None:
        self.metrics = metrics
        self.clock = clock
        self.store = MemoryResponseStore(1024**2, metrics)
        self.made = 0
        self.make()
        self.serve(FOR_A_MINUTE)

    def make(self, **policy: Any) -> None:
        self.cache = ResponseCache(
            CachePolicy.model_validate(policy),
            store=self.store,
            state_of=lambda _: None,
            is_watched=lambda _: False,
            route_of=ROUTES.match,
            metrics=self.metrics,
            now=self.clock,
        )

    def serve(self, headers: Headers = (), status: int = 200) -> None:
        self.terminal = Terminal(lambda: self.numbered(headers, status))

    def numbered(self, headers: Headers = (), status: int = 200) -> Response:
        self.made += 1
        return answer(b"answer %d" % self.made, status, headers)

    def answer_with(self, respond: Callable[[], Response | BaseException]) -> None:
        self.terminal = Terminal(respond)

    async def ask(
        self, headers: Headers = (), target: str = "/reports/1", **given: Any
    ) -> Response:
        request = read(target, headers, **given)
        return await self.cache(request, self.terminal)

    async def later(self, seconds: float, headers: Headers = (), **given: Any) -> Response:
        self.clock.at += seconds
        return await self.ask(headers, **given)


def read(
    target: str = "/reports/1",
    headers: Headers = (),
    *,
    method: str = "GET",
    owner: str | None = "alice",
    host: str = "gateway.example",
    body: object = None,
) -> Request:
    match = ROUTES.match(method, target.partition("?")[0])
    request = make_request(method, target, body, headers=headers, owner=owner, match=match)
    request.host = host
    return request


def how(response: Response) -> str:
    return response.headers["Cache-Status"]


async def text(response: Response) -> bytes:
    if isinstance(response.body, BodyStream):
        return b"".join([chunk async for chunk in response.body])
    return response.body


@pytest.fixture
def site(metrics: Metrics, clock: FakeClock) -> Site:
    return Site(metrics, clock)


async def test_an_answer_is_reused_while_its_upstream_says_so(site: Site) -> None:
    first, second = await site.ask(), await site.later(59)

    assert (how(first), how(second)) == ("gateway; fwd=uri-miss; stored", "gateway; hit; ttl=1")
    assert (second.body, second.headers["Age"]) == (first.body, "59")
    assert how(await site.later(1)) == "gateway; fwd=stale; stored"


async def test_without_a_word_of_its_upstream_nothing_is_kept(site: Site) -> None:
    site.serve()
    await site.ask()

    assert how(await site.ask()) == "gateway; fwd=uri-miss"


async def test_switched_off_only_job_statuses_are_cached(site: Site) -> None:
    site.make(http={"enabled": False})
    await site.ask()

    assert how(await site.ask()) == "gateway; fwd=bypass"


async def test_a_stream_of_events_is_never_cached(site: Site) -> None:
    request = read()
    request.match = Match(Route("job-stream", "/jobs/{job_id}/stream"), {"job_id": "1"})

    assert how(await site.cache(request, site.terminal)) == "gateway; fwd=bypass"


async def test_a_heuristic_is_what_the_policy_says(site: Site) -> None:
    modified = {"Last-Modified": format_http_date(site.clock.at - 1000)}
    site.make(http={"heuristic_fraction": 0.5, "heuristic_max": "100s"})
    site.serve(modified)
    await site.ask()

    assert how(await site.later(99)) == "gateway; hit; ttl=1"
    assert how(await site.later(1)).startswith("gateway; fwd=stale")


# --- whose answer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"owner": "bob"},
        {"owner": None},
        {"target": "/reports/2"},
        {"target": "/reports/1?x=1"},
        {"target": "/reports/1/"},
        {"target": "/reports/1/x.css"},
        {"host": "evil.example"},
    ],
)
async def test_another_request_has_another_answer(site: Site, other: dict[str, Any]) -> None:
    await site.ask()

    assert (await site.ask(**other)).body == b"answer 2"


async def test_a_public_route_is_shared_by_all_owners(site: Site) -> None:
    site.make(public=["other"])
    await site.ask(owner="alice")

    assert (await site.ask(owner="bob")).body == (await site.ask(owner=None)).body == b"answer 1"


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "a=b"},
        {"Authorization": "Basic x"},
        {"Cache-Control": "no-store"},
        {"If-Match": '"x"'},
        {"Connection": "X-Tenant"},
        {"X-Original-URL": "/admin"},
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-Forwarded-Prefix": "/evil"},
    ],
)
async def test_what_stands_in_no_key_keeps_an_answer_from_the_others(
    site: Site, headers: Headers
) -> None:
    assert (await site.ask(headers)).body == b"answer 1"
    assert (await site.ask()).body == b"answer 2"
    assert (await site.ask(headers)).body == b"answer 3"


async def test_an_answer_with_a_cookie_is_its_clients_alone(site: Site) -> None:
    site.serve({**FOR_A_MINUTE, "Set-Cookie": "a=b"})
    await site.ask()

    assert how(await site.ask()) == "gateway; fwd=uri-miss"


async def test_cookies_are_shared_where_the_policy_says_so(site: Site) -> None:
    site.make(http={"cookies": "share"})
    site.serve({**FOR_A_MINUTE, "Set-Cookie": "a=b"})
    await site.ask({"Cookie": "c=d"})

    assert how(await site.ask()) == "gateway; hit; ttl=60"


async def test_an_authorized_answer_is_shared_when_its_upstream_says_so(site: Site) -> None:
    site.serve({"Cache-Control": "s-maxage=60"})
    await site.ask({"Authorization": "Basic x"})

    assert how(await site.ask()) == how(await site.ask({"Authorization": "Basic y"}))
    assert site.made == 1


async def test_variants_are_told_apart(site: Site) -> None:
    site.serve({**FOR_A_MINUTE, "Vary": "X-Tenant"})
    for tenant in ("a", "b"):
        await site.ask({"X-Tenant": tenant})

    assert (await site.ask({"X-Tenant": "a"})).body == b"answer 1"
    assert how(await site.ask()) == "gateway; fwd=vary-miss; stored"


# --- what the client wants --------------------------------------------------------------------


async def test_only_if_cached_never_asks_the_upstream(site: Site) -> None:
    with pytest.raises(NotCached):
        await site.ask({"Cache-Control": "only-if-cached"})

    assert site.made == 0
    await site.ask()
    assert how(await site.ask({"Cache-Control": "only-if-cached"})) == "gateway; hit; ttl=60"


async def test_part_of_a_whole_answer(site: Site) -> None:
    site.serve({**FOR_A_MINUTE, "ETag": '"a"'})
    await site.ask()

    part = await site.ask({"Range": "bytes=0-2"})

    assert (part.status, part.body) == (206, b"ans")
    assert part.headers["Content-Range"] == "bytes 0-2/8"
    assert part.headers["Content-Length"] == "3"
    whole = await site.ask({"Range": "bytes=0-2", "If-Range": '"b"'})
    assert (whole.status, whole.body) == (200, b"answer 1")
    beyond = await site.ask({"Range": "bytes=8-"})
    assert (beyond.status, beyond.body) == (416, b"")
    assert beyond.headers["Content-Range"] == "bytes */8"
    assert site.made == 1


async def test_a_part_is_passed_on_and_not_kept(site: Site) -> None:
    site.serve({**FOR_A_MINUTE, "Content-Range": "bytes 0-2/8"}, status=206)
    await site.ask({"Range": "bytes=0-2"})

    assert site.terminal.headers["Range"] == "bytes=0-2"
    assert how(await site.ask()) == "gateway; fwd=uri-miss"


async def test_the_head_of_a_stored_answer(site: Site) -> None:
    await site.ask()

    head = await site.ask(method="HEAD")

    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "8")
    assert how(head) == "gateway; hit; ttl=60"


async def test_a_head_is_passed_on_and_not_kept(site: Site) -> None:
    await site.ask(method="HEAD")

    assert site.terminal.requests[0].method == "HEAD"
    assert how(await site.ask()) == "gateway; fwd=uri-miss; stored"


@pytest.mark.parametrize(
    ("headers", "then"),
    [
        ({"Cache-Control": "max-age=90"}, "gateway; hit; ttl=90"),
        ({"Content-Length": "9"}, "gateway; fwd=stale; stored"),
        ({"Cache-Control": "no-store"}, "gateway; fwd=stale; stored"),
    ],
)
async def test_a_head_renews_what_it_is_of_and_ends_what_it_is_not(
    site: Site, headers: Headers, then: str
) -> None:
    await site.ask()
    site.clock.at += 60
    site.answer_with(lambda: answer(b"", headers=headers))
    assert how(await site.ask(method="HEAD")).startswith("gateway; fwd=stale")
    site.serve(FOR_A_MINUTE)

    assert how(await site.ask()) == then


async def test_a_clients_own_conditions_are_passed_on_while_nothing_is_stored(site: Site) -> None:
    site.answer_with(lambda: answer(b"", 304, {"ETag": '"a"'}))

    response = await site.ask({"If-None-Match": '"a"'})

    assert site.terminal.headers["If-None-Match"] == '"a"'
    assert (response.status, how(response)) == (304, "gateway; fwd=uri-miss")


# --- asking whether it still holds ------------------------------------------------------------


async def stored(site: Site, **headers: str) -> None:
    site.serve({"Cache-Control": "max-age=5", **headers})
    await site.ask()
    site.clock.at += 6


def confirmed(headers: Mapping[str, str]) -> Callable[[], Response]:
    return lambda: answer(b"", 304, headers)


async def test_a_304_renews_what_is_stored(site: Site, metrics: Metrics) -> None:
    await stored(site, ETag='"a"', X="old")
    site.answer_with(confirmed({"ETag": '"a"', "X": "new", "Cache-Control": "max-age=60"}))

    response = await site.ask()

    assert how(response) == "gateway; fwd=stale; fwd-status=304; stored"
    assert (response.status, response.body) == (200, b"answer 1")
    assert (response.headers["X"], response.headers["Age"]) == ("new", "0")
    assert site.terminal.headers["If-None-Match"] == '"a"'
    assert how(await site.ask()) == "gateway; hit; ttl=60"
    assert sample(metrics, "cache_requests_total", result="revalidated") == 1


async def test_the_date_of_a_304_makes_what_is_stored_young_again(site: Site) -> None:
    now = site.clock.at
    await stored(site, ETag='"a"', Date=format_http_date(now), Age="0")
    site.answer_with(confirmed({"Cache-Control": "max-age=60", "Age": "20"}))

    assert (await site.ask()).headers["Age"] == "20"


async def test_a_client_with_a_condition_gets_what_it_asked_for(site: Site) -> None:
    await stored(site, ETag='"a"')
    site.answer_with(confirmed({"ETag": '"a"'}))

    assert (await site.ask({"If-None-Match": '"a"'})).status == 304
    assert (await site.ask({"If-None-Match": '"old"'})).status == 200


async def test_a_changed_answer_replaces_the_stored_one(site: Site) -> None:
    await stored(site, ETag='"a"')
    site.serve({**FOR_A_MINUTE, "ETag": '"b"'})

    response = await site.ask({"If-None-Match": '"b"'})

    assert (response.status, how(response)) == (304, "gateway; fwd=stale; stored")
    assert site.terminal.headers["If-None-Match"] == '"a"'
    assert (await site.ask()).body == b"answer 2"


async def test_a_304_about_another_answer_is_not_believed(site: Site) -> None:
    await stored(site, ETag='"a"')
    answers = iter([answer(b"", 304, {"ETag": '"b"'}), site.numbered(FOR_A_MINUTE)])
    site.answer_with(lambda: next(answers))

    response = await site.ask()

    assert response.body == b"answer 2"
    assert "If-None-Match" not in site.terminal.requests[1].headers


async def test_what_a_304_forbids_to_keep_is_not(site: Site) -> None:
    await stored(site, ETag='"a"')
    site.answer_with(confirmed({"Cache-Control": "no-store"}))

    assert how(await site.ask()) == "gateway; fwd=stale; fwd-status=304"
    assert how(await site.ask()) == "gateway; fwd=stale; fwd-status=304"


async def test_no_cache_is_kept_and_always_asked_for(site: Site) -> None:
    site.serve({"Cache-Control": "no-cache, max-age=60", "ETag": '"a"'})
    await site.ask()
    site.answer_with(confirmed({"ETag": '"a"'}))

    for _ in range(2):
        assert how(await site.ask()) == "gateway; fwd=stale; fwd-status=304; stored"


# --- stale answers ----------------------------------------------------------------------------


async def test_a_stale_answer_is_served_while_it_is_asked_for_anew(site: Site) -> None:
    site.serve({"Cache-Control": "max-age=5, stale-while-revalidate=60"})
    await site.ask()

    stale = [await site.later(6), await site.ask()]
    await site.cache.close()

    assert [each.body for each in stale] == [b"answer 1"] * 2
    assert how(stale[0]) == "gateway; hit; ttl=-1; detail=stale-while-revalidate"
    assert (await site.ask()).body == b"answer 2"
    assert site.made == 2


@pytest.mark.parametrize(
    "failure", [lambda: UpstreamRefused("x"), lambda: answer(b"failed", 503)], ids=["no", "503"]
)
@pytest.mark.parametrize(
    ("said", "late_seconds", "serves"),
    [
        ("max-age=5", 60, True),
        ("max-age=5", 66, False),
        ("max-age=5, stale-if-error=600", 600, True),
        ("max-age=5, must-revalidate", 6, False),
        ("s-maxage=5", 6, False),
    ],
)
async def test_a_stored_answer_stands_in_for_an_upstream_that_fails(
    site: Site,
    failure: Callable[[], Response | BaseException],
    said: str,
    late_seconds: float,
    *,
    serves: bool,
) -> None:
    site.serve({"Cache-Control": said})
    await site.ask()
    site.answer_with(failure)
    site.clock.at += late_seconds

    if isinstance(failure(), Response) or serves:
        response = await site.ask()
        assert (response.body == b"answer 1") == serves
        assert ("detail=stale-if-error" in how(response)) == serves
    else:
        with pytest.raises(UpstreamRefused) as caught:
            await site.ask()
        assert caught.value.headers["Cache-Status"] == "gateway; fwd=stale"


async def test_the_status_of_the_failure_is_told(site: Site) -> None:
    await stored(site)
    closed: list[bool] = []

    def failed() -> Response:
        response = answer(b"", 503)
        response.body = body = stream(b"x")
        body.closers.append(lambda: closed.append(True))
        return response

    site.answer_with(failed)
    assert how(await site.ask()) == "gateway; fwd=stale; fwd-status=503; detail=stale-if-error"
    assert closed == [True]


# --- changes ----------------------------------------------------------------------------------


async def changed(site: Site, response: Response, target: str = "/reports/1") -> Response:
    request = read(target, method="POST", body=b"x", owner="bob")
    return await site.cache(request, Terminal(lambda: response))


async def test_a_change_ends_what_is_stored_for_everyone(site: Site) -> None:
    for owner in ("alice", "bob"):
        await site.ask(owner=owner)

    assert how(await changed(site, answer())) == "gateway; fwd=method"

    assert [how(await site.ask(owner=owner)) for owner in ("alice", "bob")] == [
        "gateway; fwd=uri-miss; stored"
    ] * 2


async def test_a_failed_change_ends_nothing(site: Site) -> None:
    await site.ask()
    await changed(site, answer(status=500))

    assert how(await site.ask()) == "gateway; hit; ttl=60"


async def test_a_change_ends_what_its_answer_names(site: Site) -> None:
    await site.ask()
    await changed(site, answer(headers={"Location": "/reports/1"}), "/reports")

    assert how(await site.ask()) == "gateway; fwd=uri-miss; stored"


async def test_a_safe_method_changes_nothing(site: Site) -> None:
    await site.ask()
    await site.ask(method="OPTIONS")

    assert how(await site.ask()) == "gateway; hit; ttl=60"


# --- streams ----------------------------------------------------------------------------------


def streaming(site: Site, *chunks: bytes, error: BaseException | None = None) -> None:
    def respond() -> Response:
        response = site.numbered(FOR_A_MINUTE)
        response.body = stream(*chunks, error=error)
        return response

    site.answer_with(respond)


async def test_a_stream_is_kept_once_it_has_passed(site: Site) -> None:
    streaming(site, b"one ", b"two")
    first = await site.ask()
    assert how(first) == "gateway; fwd=uri-miss"
    assert how(await site.ask()) == "gateway; fwd=uri-miss"

    assert await text(first) == b"one two"

    assert (await site.ask()).body == b"one two"


async def test_each_piece_is_passed_on_at_once(site: Site) -> None:
    streaming(site, b"one", error=UpstreamRefused("broken off"))
    body = (await site.ask()).body
    assert isinstance(body, BodyStream)

    assert await anext(body) == b"one"
    with pytest.raises(UpstreamRefused):
        await anext(body)
    await body.aclose()
    assert how(await site.ask()) == "gateway; fwd=uri-miss"


@pytest.mark.parametrize("size", [8, 9])
async def test_what_is_larger_than_an_entry_may_be_is_passed_on_alone(
    site: Site, size: int
) -> None:
    site.make(max_entry=8)
    streaming(site, *[b"x"] * size)
    assert await text(await site.ask()) == b"x" * size

    kept = how(await site.ask()) == "gateway; hit; ttl=60"
    assert kept == (size <= 8)


async def test_an_announced_length_is_believed(site: Site) -> None:
    site.make(max_entry=8)

    def respond() -> Response:
        response = answer(b"", headers={**FOR_A_MINUTE, "Content-Length": "9"})
        response.body = stream(b"x")
        return response

    site.answer_with(respond)
    assert await text(await site.ask()) == b"x"
    assert how(await site.ask()) == "gateway; fwd=uri-miss"


async def test_a_large_whole_is_not_kept_either(site: Site) -> None:
    site.make(max_entry=7)
    await site.ask()

    assert how(await site.ask()) == "gateway; fwd=uri-miss"


async def test_a_stream_that_nobody_reads_ends_its_request(site: Site) -> None:
    streaming(site, b"one")
    body = (await site.ask()).body
    assert isinstance(body, BodyStream)
    assert site.cache._flights._under_way

    await body.aclose()

    assert not site.cache._flights._under_way


async def test_a_change_while_a_stream_passes_counts(site: Site) -> None:
    streaming(site, b"one", b"two")
    response = await site.ask()
    assert isinstance(response.body, BodyStream)
    await anext(response.body)
    await changed(site, answer())
    await text(response)

    assert how(await site.ask()) == "gateway; fwd=uri-miss"


# --- equal requests at once -------------------------------------------------------------------


class Waiting:
    """Requests that wait for one that is under way."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.terminal = SlowTerminal(lambda: site.numbered(FOR_A_MINUTE))
        site.terminal = self.terminal

    def start(self, headers: Headers = (), **given: Any) -> asyncio.Task[Response]:
        return asyncio.create_task(self._site.ask(headers, **given))

    async def lead(self) -> asyncio.Task[Response]:
        leader = self.start()
        await self.terminal.arrived()
        return leader


async def test_equal_requests_share_one(site: Site) -> None:
    waiting = Waiting(site)
    leader = await waiting.lead()
    followers = [waiting.start() for _ in range(50)]
    await asyncio.sleep(0)  # each follower is now waiting
    waiting.terminal.gate.set()

    await leader
    assert {how(await each) for each in followers} == {"gateway; fwd=uri-miss; collapsed"}
    assert site.made == 1


async def test_when_the_first_client_leaves_one_of_the_others_asks(site: Site) -> None:
    waiting = Waiting(site)
    leader = await waiting.lead()
    followers = [waiting.start() for _ in range(3)]
    await asyncio.sleep(0)  # each follower is now waiting
    leader.cancel()
    await waiting.terminal.arrived(2)
    await asyncio.sleep(0)  # the others wait for the second one
    waiting.terminal.gate.set()

    assert [(await each).body for each in followers] == [b"answer 1"] * 3
    assert len(waiting.terminal.requests) == 2


async def test_what_cannot_be_shared_is_asked_for_by_all_at_once(site: Site) -> None:
    waiting = Waiting(site)
    waiting.terminal.respond = site.numbered
    leader = await waiting.lead()
    followers = [waiting.start() for _ in range(3)]
    await asyncio.sleep(0)  # each follower is now waiting
    waiting.terminal.gate.set()
    bodies = {(await each).body for each in (leader, *followers)}
    assert len(bodies) == 4

    waiting.terminal.gate.clear()
    again = [waiting.start() for _ in range(3)]
    await waiting.terminal.arrived(7)  # none has waited for another
    waiting.terminal.gate.set()
    await asyncio.gather(*again)


@pytest.mark.parametrize(
    "headers", [{"Authorization": "x"}, {"Range": "bytes=0-1"}, {"If-None-Match": '"x"'}]
)
async def test_an_answer_to_more_than_the_request_line_is_not_waited_for(
    site: Site, headers: Headers
) -> None:
    waiting = Waiting(site)
    first = waiting.start(headers)
    await waiting.terminal.arrived()
    second = waiting.start()
    await waiting.terminal.arrived(2)
    waiting.terminal.gate.set()

    assert {(await first).body, (await second).body} == {b"answer 1", b"answer 2"}


async def test_a_follower_gets_what_it_asked_for(site: Site) -> None:
    waiting = Waiting(site)
    leader = await waiting.lead()
    part = waiting.start({"Range": "bytes=0-2"})
    await asyncio.sleep(0)  # it waits now
    waiting.terminal.gate.set()

    assert ((await part).status, (await part).body) == (206, b"ans")
    assert (await leader).status == 200


async def test_new_rules_apply_at_once(site: Site) -> None:
    await site.ask()
    site.cache.apply(CachePolicy(enabled=False))
    assert "Cache-Status" not in (await site.ask()).headers

    site.cache.apply(CachePolicy())
    assert how(await site.ask()) == "gateway; hit; ttl=60"


def test_headers_of_a_hit_are_its_own(site: Site) -> None:
    async def twice() -> None:
        await site.ask()
        first = await site.ask()
        first.headers["X"] = "1"
        assert "X" not in (await site.ask()).headers
        assert first.headers != CIMultiDict()

    asyncio.run(twice())
