"""A repeated request is answered by the steps of its policies: as the chain would, to the byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.core.message import Request, Response
from gateway.core.trace import Kind, Span
from gateway.policy.cache_rule import job_tag
from gateway.telemetry.trace import Tracer
from gateway.web.course import HeldCourse
from tests.support.fakes import FakeClock
from tests.support.lane import Reply, connected, get
from tests.support.stack import KEYS, POLICIES, START, Stack, stack

FIRST, SECOND = (f"X-API-Key: {key}" for key in KEYS)


@dataclass(slots=True)
class Origin:
    """Answers polls: of /jobs/1 a status that may be kept, of any other path one that may not."""

    asked: int = 0

    async def __call__(self, request: Request) -> Response:
        self.asked += 1
        kept = "max-age=30" if request.match.params else "no-store"
        headers = CIMultiDict(
            {"Content-Type": "application/json", "Cache-Control": kept, "X-Odd": "100 %s of %"}
        )
        if request.match.params.get("job_id") == "2":
            headers["Vary"] = "X-Tint"
        return Response(200, headers, b'{"status": "running", "n": %d}' % self.asked)


@dataclass(slots=True)
class Told:
    """All that one listener has said, on the wire, in its log and in its metrics."""

    replies: list[tuple[int, list[tuple[str, str]], bytes]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)


def polling(*lines: str, target: str = "/jobs/1", method: str = "GET") -> bytes:
    return get(target, *lines, method=method)


REQUESTS = {
    "first key": polling(FIRST),
    "second key": polling(SECOND),
    "no key": polling(),
    "own id": polling(FIRST, "X-Request-ID: the-clients-own"),
    "known already": polling(FIRST, "If-None-Match: *"),
    "head": polling(FIRST, method="HEAD"),
    "waiting": polling(FIRST, "Prefer: wait=30", 'If-None-Match: "another"'),
    "part": polling(FIRST, "Range: bytes=1-4"),
    "no stale": polling(FIRST, "Cache-Control: max-age=5"),
    "unstored": polling(FIRST, target="/plain"),
    "missing": polling(FIRST, target="/a/../../.."),
    **{
        f"{name} {number}": polling(FIRST, line.format(number), *more, target=target)
        for number in (1, 2, 33)
        for name, line, target, more in (
            ("nobody's", "X-Poll: {}", "/jobs/1", ()),
            ("trace", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-{:016x}-01", "/jobs/1", ()),
            ("accepts", "Accept: a/{}", "/jobs/1", ()),
            ("team", "X-Team: {}", "/jobs/1", ()),
            ("tint", "X-Tint: {}", "/jobs/2", ("X-Poll: 1",)),
            ("id", "X-Request-ID: the-clients-{}", "/jobs/1", ()),
            ("cookie", "Cookie: c={}", "/jobs/1", ()),
            ("known", 'If-None-Match: "{}"', "/jobs/1", ()),
            ("broken", "X-Poll: {}\x01", "/jobs/1", ()),
            ("folded", "X-Poll: {}\r\n more", "/jobs/1", ()),
            ("underscored", "X_Poll: {}", "/jobs/1", ()),
        )
    },
}


def comparable(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    fields = sorted((name.lower(), value) for name, value in reply.fields)
    return reply.status, fields, reply.body


def limits(per_key: int) -> dict[str, Any]:
    changed = {**POLICIES["rate_limits"]["limits"]}
    changed["per-key"] = {**changed["per-key"], "limit": per_key}
    return {**POLICIES, "rate_limits": {"limits": changed}}


async def _purge(run: Stack) -> None:
    await run.cache.purge(job_tag("1"))


async def _outdate(run: Stack) -> None:
    await run.cache.purge(job_tag("1"), terminal=False)


async def _reload(run: Stack) -> None:
    run.apply(limits(8))


async def _revoke(run: Stack) -> None:
    run.apply({**POLICIES, "auth": {**POLICIES["auth"], "entries": []}})


EVENTS: dict[str, Callable[[Stack], Any]] = {
    "purged": _purge,
    "outdated": _outdate,
    "limits changed": _reload,
    "keys revoked": _revoke,
}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(sorted(REQUESTS)), st.integers(1, 7)),
        st.tuples(st.sampled_from(sorted(EVENTS)), st.just(1)),
        st.tuples(st.just("later"), st.sampled_from([1, 20, 61])),
    ),
    min_size=2,
    max_size=10,
)


async def told(steps: list[tuple[str, int]], *, fast: bool) -> Told:
    clock = FakeClock(START)
    result = Told()
    async with stack(Origin(), clock, fast=fast) as run, connected(run.port) as wire:
        for name, count in steps:
            if name == "later":
                clock.at += count
            elif name in EVENTS:
                await EVENTS[name](run)
            else:
                raw = REQUESTS[name]
                for _ in range(count):
                    await wire.send(raw)
                    reply = await wire.reply(raw.split(b" ")[0].decode())
                    result.replies.append(comparable(reply))
                    if reply.get("Connection") == "close":
                        return result
        result.lines, result.counts = run.lines, run.counts()
    return result


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
async def test_it_is_answered_logged_and_counted_as_by_the_chain(
    steps: list[tuple[str, int]],
) -> None:
    fast, full = await told(steps, fast=True), await told(steps, fast=False)

    assert fast.replies == full.replies
    assert fast.lines == full.lines
    assert fast.counts == full.counts


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was answered by a course."""
    answers: list[bytes] = []
    original = HeldCourse.answer

    def noting(self: HeldCourse, at: float, *, close: bool = False) -> bytes:
        answers.append(original(self, at, close=close))
        return answers[-1]

    monkeypatch.setattr(HeldCourse, "answer", noting)
    return answers


async def asked(run: Stack, *raws: bytes) -> list[Reply]:
    async with connected(run.port) as wire:
        replies = []
        for raw in raws:
            await wire.send(raw)
            replies.append(await wire.reply())
        return replies


@pytest.mark.parametrize("name", ["first key", "own id", "known already", "part"])
async def test_a_poll_of_what_is_stored_takes_it_from_the_third_time_on(
    name: str, answered: list[bytes]
) -> None:
    origin = Origin()
    async with stack(origin, FakeClock(START)) as run:
        await asked(run, polling(FIRST))
        await asked(run, *[REQUESTS[name]] * 5)

    assert (len(answered), origin.asked) == (3, 1)


@pytest.mark.parametrize(
    ("name", "taken"), [("nobody's", 3), ("trace", 3), ("accepts", 0), ("team", 0), ("id", 0)]
)
async def test_heads_that_differ_in_what_nobody_reads_take_it_as_well(
    name: str,
    taken: int,
    answered: list[bytes],
) -> None:
    origin = Origin()
    numbers = (1, 2, 33, 1, 2)
    async with stack(origin, FakeClock(START)) as run:
        await asked(run, polling(FIRST))
        replies = await asked(run, *[REQUESTS[f"{name} {number}"] for number in numbers])

    assert [reply.status for reply in replies] == [200] * 5
    assert len(answered) == taken


@pytest.mark.parametrize("event", sorted(EVENTS))
async def test_an_event_ends_it(event: str, answered: list[bytes]) -> None:
    async with stack(Origin(), FakeClock(START)) as run, connected(run.port) as wire:
        for _ in range(4):
            await wire.send(polling(FIRST))
            await wire.reply()
        before = len(answered)
        await EVENTS[event](run)
        await wire.send(polling(FIRST))
        await wire.reply()

    assert before == 2
    assert len(answered) == before


async def test_a_draining_server_ends_the_connection_with_its_answer(answered: list[bytes]) -> None:
    async with stack(Origin(), FakeClock(START)) as run, connected(run.port) as wire:
        for _ in range(4):
            await wire.send(polling(FIRST))
            await wire.reply()
        run.server.is_draining = True
        await wire.send(polling(FIRST))
        reply = await wire.reply()

        assert reply.get("Connection") == "close"
        assert await wire.ended()


@pytest.mark.parametrize("client", ["", "a1" * 16])
async def test_each_time_is_a_span_of_its_own_where_requests_are_traced(
    client: str, answered: list[bytes]
) -> None:
    ended: list[Span] = []
    clock = FakeClock(START)
    sent = [FIRST, f"traceparent: 00-{client}-{'b2' * 8}-01"] if client else [FIRST]
    async with stack(Origin(), clock, tracer=Tracer(1.0, ended.append)) as run:
        await asked(run, *[polling(*sent)] * 5)
        lines = run.lines
        exposition = run.metrics.render("application/openmetrics-text")[1].decode()

    assert len(answered) == 3
    served = [span for span in ended if span.kind is Kind.SERVER]
    assert len({span.context.span_id for span in served}) == 5
    assert len({span.context.trace_id for span in served}) == (1 if client else 5)
    assert {span.parent_id for span in served} == {"b2" * 8 if client else None}
    assert [span.ids for span in served] == [
        {"trace_id": line["trace_id"], "span_id": line["span_id"]} for line in lines
    ]
    assert {span.attributes["http.response.status_code"] for span in served} == {200}
    assert served[-1].attributes["gateway.cache"] == "hit"
    assert served[-1].context.span_id in exposition
