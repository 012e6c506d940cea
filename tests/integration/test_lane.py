"""The two lanes of the public listener over real sockets: the same answers, one fast, one full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.core.error import NotFound
from gateway.core.message import BodyStream, Request, Response
from gateway.web.event_stream import HINT
from tests.support.lane import Reply, ask, connected, get, running
from tests.support.policy import sample
from tests.support.system import eventually

NOW = 1_789_000_000.5
LANES = pytest.mark.parametrize("fast", [True, False], ids=["fast", "full"])


def fixed() -> float:
    return NOW


async def echo(request: Request) -> Response:
    """Answers with what it was asked."""
    headers = CIMultiDict({"Content-Type": "text/plain"})
    said = f"{request.method} {request.target} {request.match.name} {request.host}"
    return Response(200, headers, said.encode())


def streaming(*pieces: bytes, kind: str = "text/plain") -> Response:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            yield piece

    return Response(200, CIMultiDict({"Content-Type": kind}), BodyStream(chunks()))


@LANES
async def test_a_connection_is_used_again(fast: bool) -> None:  # noqa: FBT001
    async with running(echo, fast=fast) as run, connected(run.port) as wire:
        for target in ("/a", "/a", "/jobs/7?x=1", "/a"):
            await wire.send(get(target))
            reply = await wire.reply()
            assert (reply.status, reply.get("Connection")) == (200, None)
            name = "job-status" if target.startswith("/jobs") else "other"
            assert reply.body == f"GET {target} {name} api.example".encode()


@LANES
async def test_pipelined_requests_are_answered_in_order(fast: bool) -> None:  # noqa: FBT001
    async def slow_first(request: Request) -> Response:
        if request.target == "/0":
            await asyncio.sleep(0.01)
        return await echo(request)

    async with running(slow_first, fast=fast) as run, connected(run.port) as wire:
        posts = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        await wire.send(b"".join(get(f"/{n}") for n in range(40)) + posts + get("/last"))
        bodies = [(await wire.reply()).body for _ in range(42)]

    targets = [body.split(b" ")[1].decode() for body in bodies]
    assert targets == [*(f"/{n}" for n in range(40)), "/p", "/last"]


@LANES
async def test_a_head_may_come_byte_by_byte(fast: bool) -> None:  # noqa: FBT001
    raw = get("/jobs/1", "Accept: */*")
    async with running(echo, fast=fast) as run, connected(run.port) as wire:
        await wire.send(*(raw[n : n + 1] for n in range(len(raw))))
        assert (await wire.reply()).body == b"GET /jobs/1 job-status api.example"


async def test_lanes_alternate_on_one_connection() -> None:
    async def body(request: Request) -> Response:
        read = await request.body.read(1000)
        return Response(200, CIMultiDict(), request.method.encode() + read)

    async with running(body) as run, connected(run.port) as wire:
        for _ in range(3):
            await wire.send(get("/a"))
            assert (await wire.reply()).body == b"GET"
            await wire.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", b"abc")
            assert (await wire.reply()).body == b"POSTabc"
            chunked = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            await wire.send(chunked, b"2\r\nde\r\n", b"0\r\n\r\n" + get("/b", method="HEAD"))
            assert (await wire.reply()).body == b"POSTde"
            head = await wire.reply("HEAD")
            assert (head.get("Content-Length"), head.body) == ("4", b"")


@LANES
async def test_an_answer_streams_piece_by_piece(fast: bool) -> None:  # noqa: FBT001
    first_was_read = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"first"
        await first_was_read.wait()
        yield b"second"

    async def answer(_: Request) -> Response:
        return Response(200, CIMultiDict({"Content-Type": "text/plain"}), BodyStream(chunks()))

    async with running(answer, fast=fast) as run, connected(run.port) as wire:
        await wire.send(get())
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        assert await wire.reader.readexactly(10) == b"5\r\nfirst\r\n"
        first_was_read.set()
        assert await wire.reader.readexactly(16) == b"6\r\nsecond\r\n0\r\n\r\n"
        await wire.send(get(method="HEAD"))  # and the connection goes on
        assert (await wire.reply("HEAD")).status == 200


@LANES
async def test_a_stream_that_breaks_is_not_passed_off_as_whole(fast: bool) -> None:  # noqa: FBT001
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"first"
        raise NotFound("no more")

    async def answer(_: Request) -> Response:
        return Response(200, CIMultiDict({"Content-Type": "text/plain"}), BodyStream(chunks()))

    async with running(answer, fast=fast) as run, connected(run.port) as wire:
        await wire.send(get())
        try:
            seen = await wire.rest()
        except ConnectionResetError:
            seen = b""
    assert not seen.endswith(b"0\r\n\r\n")


@LANES
async def test_a_client_that_leaves_ends_its_stream(fast: bool) -> None:  # noqa: FBT001
    ended = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"data: x\n\n"
                await asyncio.sleep(0.005)
        finally:
            ended.set()

    async def answer(_: Request) -> Response:
        return Response(200, CIMultiDict(), BodyStream(chunks()))

    async with running(answer, fast=fast) as run:
        async with connected(run.port) as wire:
            await wire.send(get())
            await wire.reader.readuntil(b"data: x\n\n")
        async with asyncio.timeout(5):
            await ended.wait()


@LANES
async def test_a_client_that_leaves_ends_a_stream_that_is_silent(fast: bool) -> None:  # noqa: FBT001
    ended = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            yield b"data: x\n\n"
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def answer(_: Request) -> Response:
        return Response(
            200, CIMultiDict({"Content-Type": "text/event-stream"}), BodyStream(chunks())
        )

    async with running(answer, fast=fast) as run:
        async with connected(run.port) as wire:
            await wire.send(get())
            await wire.reader.readuntil(b"data: x\n\n")
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_client_that_leaves_ends_the_request_it_waits_for() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer(_: Request) -> Response:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return Response(200)

    async with running(answer) as run:
        async with connected(run.port) as wire:
            await wire.send(get())
            await begun.wait()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_reader_that_stands_still_is_dropped() -> None:
    ended = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            ended.set()

    async def answer(_: Request) -> Response:
        return Response(200, CIMultiDict(), BodyStream(chunks()))

    async with running(answer, write_timeout=0.05) as run, connected(run.port) as wire:
        await wire.send(get())
        async with asyncio.timeout(10):
            await ended.wait()


async def test_connections_are_counted_and_bounded() -> None:
    async with running(echo, max_connections=2) as run:
        async with connected(run.port) as one, connected(run.port) as two:
            await one.send(get())
            await two.send(get())
            assert (await one.reply()).status == (await two.reply()).status == 200
            assert sample(run.metrics, "active_connections") == 2
            async with connected(run.port) as third:
                assert await third.ended()
        assert sample(run.metrics, "connections_refused_total") == 1


async def test_an_idle_connection_ends() -> None:
    async with running(echo, keepalive_timeout=0.05) as run, connected(run.port) as wire:
        await wire.send(get())
        assert (await wire.reply()).status == 200
        assert await wire.ended()


@LANES
async def test_a_drain_ends_streams_between_events_with_a_hint(fast: bool) -> None:  # noqa: FBT001
    closed = asyncio.Event()

    async def chunks() -> AsyncGenerator[bytes, None]:
        try:
            yield b"data: 1\n\n"
            await asyncio.sleep(60)
        finally:
            closed.set()

    async def answer(_: Request) -> Response:
        headers = CIMultiDict({"Content-Type": "text/event-stream"})
        return Response(200, headers, BodyStream(chunks()))

    async with running(answer, fast=fast) as run, connected(run.port) as wire:
        await wire.send(get())
        await wire.reader.readuntil(b"data: 1\n\n")
        await run.server.stop()
        rest = await wire.rest()
        assert HINT in rest
        assert rest.endswith(b"\r\n0\r\n\r\n")
        assert closed.is_set()


@LANES
async def test_a_drain_lets_requests_finish_and_says_close(fast: bool) -> None:  # noqa: FBT001
    begun, release = asyncio.Event(), asyncio.Event()

    async def answer(_: Request) -> Response:
        begun.set()
        await release.wait()
        return Response(200, CIMultiDict(), b"done")

    async with running(answer, fast=fast) as run, connected(run.port) as wire:
        await wire.send(get())
        await begun.wait()
        stopping = asyncio.create_task(run.server.stop())
        await eventually("it takes no more clients", lambda: refuses(run.port))
        release.set()
        reply = await wire.reply()
        assert (reply.body, reply.get("Connection")) == (b"done", "close")
        assert await wire.ended()
        await stopping


async def refuses(port: int) -> bool:
    """True when no connection can be made to a port."""
    try:
        async with connected(port) as wire:
            return await wire.ended()
    except OSError:
        return True


# --- one chain, two lanes ----------------------------------------------------------------------

TARGETS = st.sampled_from(
    [
        "/",
        "/a",
        "/jobs/1",
        "/jobs/%31",
        "/a/../b",
        "/../a",
        "/a%2fb",
        "/a?x=1&y",
        "/a;b",
        "//a/",
        "*",
    ]
)
LINES = st.lists(
    st.sampled_from(
        [
            "Accept: */*",
            "X-Request-ID: client-chose-this",
            "X-Request-ID: no",
            "X-Forwarded-For: 6.6.6.6",
            "Cookie: a=b",
            "Range: bytes=0-1",
            "X_Bad: 1",
            "X-Caf\u00e9: 1",
            "X-Text: caf\u00e9",
            "Host: twice.example",
            "If-None-Match: *",
        ]
    ),
    max_size=4,
)
ANSWERS = st.sampled_from(
    [
        (
            "whole",
            200,
            [("Content-Type", "application/json"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
        ),
        ("whole", 201, [("X-Text", "caf\u00e9")]),
        ("whole", 404, [("Date", "Mon, 01 Jan 2024 00:00:00 GMT"), ("Server", "uvicorn")]),
        ("whole", 599, []),
        ("empty", 200, []),
        ("empty", 204, []),
        ("empty", 304, [("ETag", '"1"'), ("Content-Length", "12")]),
        ("stream", 200, [("Content-Type", "text/plain")]),
        ("stream", 206, [("Content-Length", "11")]),
        ("problem", 404, []),
        ("crash", 500, []),
    ]
)


def comparable(reply: Reply) -> tuple[int, str, list[tuple[str, str]], bytes]:
    """All of an answer; fields by name, for their order means nothing between names."""
    fields = sorted(reply.fields, key=lambda field: field[0].lower())
    return reply.status, reply.reason, fields, reply.body


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["GET", "HEAD", "TRACE"]), target=TARGETS, lines=LINES, answer=ANSWERS
)
async def test_both_lanes_send_the_same_bytes(
    method: str, target: str, lines: list[str], answer: tuple[str, int, list[tuple[str, str]]]
) -> None:
    kind, status, fields = answer
    seen: list[tuple[str, str, list[tuple[str, str]], str]] = []

    async def terminal(request: Request) -> Response:
        got = (request.method, request.target, [*request.headers.items()], request.client)
        seen.append(got)
        if kind == "problem":
            raise NotFound("Not here.")
        if kind == "crash":
            raise LookupError("unforeseen")
        headers = CIMultiDict(fields)
        if kind == "stream":
            return Response(status, headers, streaming(b"first ", b"later").body)
        return Response(status, headers, b"" if kind == "empty" else b"whole body")

    replies = []
    for fast in (True, False):
        async with running(terminal, fast=fast, now=fixed) as run:
            replies.append(await ask(run.port, get(target, *lines, method=method), method))

    assert comparable(replies[0]) == comparable(replies[1])
    assert len(seen) in (0, 2)
    assert len(seen) == 0 or seen[0] == seen[1]
