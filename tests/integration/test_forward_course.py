"""A repeated request that the upstream answers: forwarded by the steps of its policies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Self

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from gateway.web.course import ForwardCourse
from tests.support.inside import GatewayInside
from tests.support.lane import Reply, Wire, connected, get
from tests.support.system import KEY, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLL = get("/plain", f"X-API-Key: {KEY}", "Accept: */*")
HEAD = "HTTP/1.1 200 OK\r\nDate: {date}\r\nServer: odd/1\r\nX-Odd: 100 %s\r\n{more}"
FIRST_DATE, SECOND_DATE = "Tue, 24 Nov 2026 10:00:00 GMT", "Tue, 24 Nov 2026 10:00:01 GMT"
REFUSED, CLOSED = b"", b"closed"


def answer(body: bytes, *more: str, date: str = FIRST_DATE) -> bytes:
    fields = "".join(f"{line}\r\n" for line in (*more, f"Content-Length: {len(body)}"))
    return HEAD.format(date=date, more=fields).encode() + b"\r\n" + body


CHUNKED = HEAD.format(date=FIRST_DATE, more="Transfer-Encoding: chunked\r\n").encode()
# What the upstream writes to one request, packet by packet; `CLOSED` ends the connection.
BEHAVIOURS: dict[str, Sequence[bytes]] = {
    "same": [answer(b"12345")],
    "same length": [answer(b"abcde")],
    "in two": [answer(b"12345")[:-5], b"12345"],
    "in three": [answer(b"12345")[:20], answer(b"12345")[20:-2], b"45"],
    "another second": [answer(b"12345", date=SECOND_DATE)],
    "another length": [answer(b"123456789")],
    "limits of its own": [answer(b"12345", 'RateLimit: "x";r=1', "X-XSS-Protection: 1")],
    "chunked": [CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n"],
    "large": [answer(b"x" * 100_000)],
    "empty": [answer(b"")],
    "no content": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "not found": [answer(b"gone").replace(b"200 OK", b"404 Not Found")],
    "failed": [answer(b"oh no").replace(b"200 OK", b"500 Oh")],
    "last": [answer(b"12345", "Connection: close"), CLOSED],
    "too much": [answer(b"12345") + b"HTTP/1.1"],
    "cut off": [answer(b"12345")[:-1], CLOSED],
    "nothing": [CLOSED],
    "no HTTP": [b"220 ftp ready\r\n\r\n"],
}

# Fields that another poll may have with another value.
VARIED = (
    "X-Poll: {}",
    "X-Poll:{}\t ",
    "X-Poll: 1\r\nX-Poll: {}",
    "Proxy-Authorization: Basic {}",
    "Accept-Encoding: a{}",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-{:016x}-01",
    "traceparent: broken-{0}\r\ntracestate: a={0}",
    "X-Forwarded-For: 192.0.2.{}",
    "User-Agent: é{}",
)


class Upstream:
    """Does to each request as it is told, and knows what it was asked."""

    def __init__(self) -> None:
        self.behaviour: Sequence[bytes] = BEHAVIOURS["same"]
        self.heads: list[bytes] = []
        self.connections: set[asyncio.StreamWriter] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return str(URL.build(scheme="http", host="127.0.0.1", port=port))

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.leave()

    def leave(self) -> None:
        """Close every connection."""
        for writer in self.connections:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await self.gate.wait()
                for piece in self.behaviour:
                    if piece is CLOSED:
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)  # so that each piece is a packet of its own
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.connections.discard(writer)
            writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lanes(
    upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[list[GatewayInside]]:
    """A gateway that answers on the fast lane, and one on the full."""
    quiet = {
        "upstream": {
            "response_timeout": "2s",
            "retry": {"share": 0.0, "per_second": 0},
            "breaker": {"failures": 0},
        },
        "health": {"interval": "1h"},
        "policies": {
            "rate_limits": {
                "limits": {"per-key": {"limit": 1_000_000, "window": "60s", "by": ["key"]}}
            }
        },
    }
    made = [
        GatewayInside(tmp_path_factory.mktemp(name), upstream.url, **quiet)
        for name in ("fast", "full")
    ]
    async with made[0], made[1]:
        server = made[1].gateway.front.server
        server.terms = replace(server.terms, fast=False)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(lanes: list[GatewayInside], upstream: Upstream) -> AsyncIterator[GatewayInside]:
    upstream.behaviour = BEHAVIOURS["same"]
    yield lanes[0]
    upstream.gate.set()
    await lanes[0].gateway.front.cache.purge("uri:/plain")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a course was taken."""
    times: list[float] = []
    original: Callable[[ForwardCourse, float], None] = ForwardCourse.start

    def noting(self: ForwardCourse, at: float) -> None:
        times.append(at)
        original(self, at)

    monkeypatch.setattr(ForwardCourse, "start", noting)
    return times


def port_of(gateway: GatewayInside) -> int:
    port = URL(gateway.public).port
    assert port is not None
    return port


async def polled(wire: Wire, times: int = 1, raw: bytes = POLL) -> Reply:
    for _ in range(times - 1):
        await wire.send(raw)
        await wire.reply()
    await wire.send(raw)
    return await wire.reply()


def numbered(line: str | None, number: int) -> bytes:
    """A poll, with a line of its own if one is given."""
    more = () if line is None else (line.format(number),)
    return get("/plain", f"X-API-Key: {KEY}", "Accept: */*", *more)


def comparable(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    """All of it but ids, clocks and counts."""
    fields = sorted((name.lower(), re.sub(r"\d+", "0", value)) for name, value in reply.fields)
    body = re.sub(rb'"request_id":"[^"]*"', b"", reply.body)
    hidden = {"x-request-id", "date"} if reply.status >= 400 else {"x-request-id"}
    return reply.status, [field for field in fields if field[0] not in hidden], body


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(st.sampled_from(sorted(BEHAVIOURS)), min_size=1, max_size=5),
    line=st.sampled_from([None, *VARIED]),
)
async def test_answers_are_those_of_the_chain(
    names: list[str], line: str | None, lanes: list[GatewayInside], upstream: Upstream
) -> None:
    told = []
    for gateway in lanes:
        replies = []
        upstream.behaviour = BEHAVIOURS["same"]
        upstream.heads.clear()
        async with connected(port_of(gateway)) as wire:
            for number in range(4):
                await polled(wire, raw=numbered(line, number))
            for number, name in enumerate(names):
                upstream.behaviour = BEHAVIOURS[name]
                replies.append(
                    comparable(await polled(wire, raw=numbered(line, (number + 1) // 2 % 3)))
                )
        await gateway.gateway.front.cache.purge("uri:/plain")
        asked = [head for head in upstream.heads if head.startswith(b"GET /plain")]
        told.append((replies, [re.sub(rb"(?i)x-request-id: .*", b"", head) for head in asked]))

    assert told[0] == told[1]


async def test_it_is_taken_once_the_chain_has_answered_twice(
    gateway: GatewayInside, upstream: Upstream, started: list[float]
) -> None:
    upstream.heads.clear()
    async with connected(port_of(gateway)) as wire:
        replies = [await polled(wire) for _ in range(5)]

    assert len(started) >= 2
    assert all(comparable(reply) == comparable(replies[0]) for reply in replies)
    ids = [reply.get("X-Request-ID") for reply in replies]
    asked = [re.search(rb"x-request-id: (\S+)", head, re.IGNORECASE) for head in upstream.heads]
    assert [found[1].decode() for found in asked if found] == ids
    assert len(set(ids)) == 5
    assert not any(KEY.encode() in head for head in upstream.heads)


async def test_heads_that_differ_in_what_nobody_reads_are_forwarded_so(
    gateway: GatewayInside, upstream: Upstream, started: list[float]
) -> None:
    upstream.heads.clear()
    async with connected(port_of(gateway)) as wire:
        for number in range(6):
            await polled(wire, raw=numbered("X-Poll: {}", number))

    assert len(started) >= 3
    polls = [re.search(rb"X-Poll: (\d+)\r\n", head) for head in upstream.heads]
    assert [found and int(found[1]) for found in polls] == list(range(6))


async def test_what_came_whole_before_is_passed_on_without_a_task(
    gateway: GatewayInside, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[bytes] = []
    original: Callable[[ForwardCourse, bytes, bytes], None] = ForwardCourse.whole

    def noting(self: ForwardCourse, head: bytes, body: bytes) -> None:
        whole.append(body)
        original(self, head, body)

    monkeypatch.setattr(ForwardCourse, "whole", noting)
    async with connected(port_of(gateway)) as wire:
        await polled(wire, 4)
        whole.clear()
        for name in ("same", "same length", "in two"):
            upstream.behaviour = BEHAVIOURS[name]
            await polled(wire)

    assert whole == [b"12345", b"abcde", b"12345"]


async def test_a_connection_that_the_upstream_closed_is_replaced(
    gateway: GatewayInside, upstream: Upstream, started: list[float]
) -> None:
    async with connected(port_of(gateway)) as wire:
        await polled(wire, 4)
        upstream.behaviour = [*BEHAVIOURS["same"], CLOSED]
        replies = [await polled(wire) for _ in range(3)]
        upstream.behaviour = BEHAVIOURS["same"]
        replies.append(await polled(wire))

    assert [reply.status for reply in replies] == [200] * 4
    assert started


async def test_an_upstream_too_slow_is_a_problem_and_the_next_answer_is_none(
    gateway: GatewayInside, upstream: Upstream, started: list[float]
) -> None:
    async with connected(port_of(gateway)) as wire:
        await polled(wire, 4)
        upstream.gate.clear()
        late = await polled(wire)
        upstream.gate.set()
        again = await polled(wire)

    assert started
    assert (late.status, late.get("Content-Type")) == (504, "application/problem+json")
    assert late.get("RateLimit") is not None
    assert late.get("X-Content-Type-Options") == "nosniff"
    assert (again.status, again.body) == (200, b"12345")


async def test_a_client_that_leaves_ends_its_request(
    gateway: GatewayInside, upstream: Upstream, started: list[float]
) -> None:
    async def asked() -> bool:
        return len(upstream.heads) == 1

    async def told() -> bool:
        return len(gateway.lines) == 1

    async def closed() -> bool:
        return len(upstream.connections) < open_before

    async with connected(port_of(gateway)) as wire:
        await polled(wire, 4)
        started.clear()
        upstream.heads.clear()
        gateway.lines.clear()
        open_before = len(upstream.connections)
        upstream.gate.clear()
        await wire.send(POLL)
        await eventually("asked", asked)
    await eventually("a line", told)
    upstream.gate.set()
    await eventually("closed", closed)

    assert len(started) == 1
    line = gateway.lines[0]
    assert (line["status"], line["aborted"]) == (499, True)


async def test_what_may_be_kept_after_all_is_kept_the_next_time(
    gateway: GatewayInside, upstream: Upstream, started: list[float]
) -> None:
    async with connected(port_of(gateway)) as wire:
        await polled(wire, 4)
        upstream.behaviour = [answer(b"12345", "Cache-Control: max-age=10000000")]
        statuses = [(await polled(wire)).get("Cache-Status") for _ in range(3)]

    assert statuses[0] == "gateway; fwd=uri-miss"
    assert statuses[1] == "gateway; fwd=uri-miss; stored"
    assert str(statuses[2]).startswith("gateway; hit; ttl=")


async def test_a_draining_gateway_ends_the_connection_with_the_answer(
    gateway: GatewayInside, upstream: Upstream
) -> None:
    server = gateway.gateway.front.server
    async with connected(port_of(gateway)) as wire:
        await polled(wire, 4)
        try:
            server.is_draining = True
            reply = await polled(wire)
        finally:
            server.is_draining = False

        assert (reply.get("Connection"), reply.body) == ("close", b"12345")
        assert await wire.ended()


async def test_each_answer_is_measured_by_its_own_status(
    gateway: GatewayInside, upstream: Upstream
) -> None:
    def counts() -> list[float]:
        sample = gateway.gateway.metrics.registry.get_sample_value
        name = "gateway_http_request_duration_seconds_count"
        labels = {"route": "other", "method": "GET"}
        return [sample(name, {**labels, "status": each}) or 0.0 for each in ("200", "404")]

    before = counts()
    async with connected(port_of(gateway)) as wire:
        upstream.behaviour = BEHAVIOURS["not found"]
        await polled(wire, 3)
        upstream.behaviour = BEHAVIOURS["same"]
        await polled(wire, 4)

    assert [now - then for now, then in zip(counts(), before, strict=True)] == [4, 3]


async def test_requests_counted_are_those_that_came(
    gateway: GatewayInside, upstream: Upstream, started: list[float]
) -> None:
    def count() -> float:
        sample = gateway.gateway.metrics.registry.get_sample_value
        labels = {"route": "other", "outcome": "2xx"}
        return sample("gateway_upstream_request_duration_seconds_count", labels) or 0.0

    before = count()
    gateway.lines.clear()
    async with connected(port_of(gateway)) as wire:
        replies = [await polled(wire) for _ in range(6)]

    assert started
    assert count() - before == 6
    assert [line["request_id"] for line in gateway.lines] == [
        reply.get("X-Request-ID") for reply in replies
    ]
    assert {(line["status"], line["bytes"], line["cache"]) for line in gateway.lines} == {
        (200, 5, "miss")
    }
