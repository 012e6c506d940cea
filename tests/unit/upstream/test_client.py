"""The only caller of the job API: it passes on what it is given, and tells every failure apart."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from gateway.core.error import (
    ContentTooLarge,
    UpstreamError,
    UpstreamMalformed,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.settings.upstream import Upstream
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import UpstreamClient
from gateway.upstream.connection import Connection, Timeouts
from gateway.upstream.response import Expected

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Script = Callable[["Wire"], Awaitable[None]]


class Wire:
    """One connection of the upstream's: what came in, and whatever it wants to send."""

    def __init__(
        self,
        upstream: RawUpstream,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.upstream = upstream
        self._reader = reader
        self._writer = writer

    async def head(self) -> bytes:
        """A request up to its blank line."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def read(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def left(self) -> None:
        """Wait until the client has closed its side."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def reset(self) -> None:
        self._writer.transport.abort()


async def silent(wire: Wire) -> None:
    """Hear a request, and never answer it."""
    await wire.head()
    wire.upstream.heard.set()
    await wire.left()


class RawUpstream:
    """Speaks HTTP as a test scripts it, byte by byte."""

    def __init__(self) -> None:
        self.connections = 0
        self.heard = asyncio.Event()
        self.requests: list[bytes] = []
        self.script: Script = self.answer(OK)
        self.url = ""

    def answer(self, data: bytes) -> Script:
        """A script that answers every request of a connection with these bytes."""

        async def script(wire: Wire) -> None:
            with suppress(asyncio.IncompleteReadError):
                while True:
                    self.requests.append(await wire.head())
                    await wire.send(data)

        return script

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            self.connections += 1
            try:
                await self.script(Wire(self, reader, writer))
            except (ConnectionError, asyncio.CancelledError):
                return  # the client has left, or the test is over
            finally:
                tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            running = list(tasks)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
async def upstream() -> AsyncIterator[RawUpstream]:
    made = RawUpstream()
    async with made.serving():
        yield made


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def client(upstream: RawUpstream, metrics: Metrics) -> AsyncIterator[UpstreamClient]:
    async with opened(upstream.url, metrics) as made:
        yield made


@asynccontextmanager
async def opened(url: str, metrics: Metrics, **settings: Any) -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(Upstream(url=url, **settings), metrics)
    await client.open()
    try:
        yield client
    finally:
        await client.close()


def errors(metrics: Metrics, reason: str) -> float:
    return float(metrics.upstream_errors_total.labels(reason)._value.get())


async def get(client: UpstreamClient, target: str = "/") -> tuple[int, bytes]:
    async with await client.send("GET", target, {}) as exchange:
        return exchange.status, await exchange.read(1 << 20)


class TestTransparency:
    async def test_request_is_what_was_given_and_nothing_more(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        await get(client, "/a%2Fb/%C3%A9?x=%20+&y=%zz&x=2")
        (head,) = upstream.requests
        lines = head.decode().split("\r\n")
        assert lines[0] == "GET /a%2Fb/%C3%A9?x=%20+&y=%zz&x=2 HTTP/1.1"
        assert lines[1:] == [f"Host: {upstream.url.removeprefix('http://')}", "", ""]

    async def test_path_of_the_url_comes_first(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        async with opened(upstream.url + "/base/", metrics) as client:
            await get(client, "/a?b")
        assert upstream.requests[0].startswith(b"GET /base/a?b HTTP/1.1\r\n")

    async def test_headers_pass_as_they_are_repeated_ones_too(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        headers = CIMultiDict(
            [("X-One", "1"), ("x-one", "2"), ("Accept-Encoding", "br"), ("Host", "api.example")]
        )
        async with await client.send("GET", "/", headers):
            pass
        lines = upstream.requests[0].decode().split("\r\n")[1:-2]
        assert sorted(lines) == sorted(
            ["X-One: 1", "x-one: 2", "Accept-Encoding: br", "Host: api.example"]
        )

    async def test_response_head_passes_as_it_is(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        upstream.script = upstream.answer(
            b"HTTP/1.1 299 Quite Fine\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nX-Raw: \xe9\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        async with await client.send("GET", "/", {}) as exchange:
            assert (exchange.status, exchange.reason) == (299, "Quite Fine")
            assert exchange.headers.getall("Set-Cookie") == ["a=1", "b=2"]
            assert exchange.headers["X-Raw"] == "\udce9"  # as aiohttp has it, and writes it again

    async def test_cookies_are_not_kept_from_one_client_to_the_next(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        upstream.script = upstream.answer(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: session=alice\r\nContent-Length: 0\r\n\r\n"
        )
        await get(client)
        await get(client)
        assert b"session" not in upstream.requests[1]

    async def test_redirect_is_not_followed(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        upstream.script = upstream.answer(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"
        )
        assert await get(client) == (307, b"")
        assert len(upstream.requests) == 1

    async def test_compressed_body_stays_compressed(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        packed = gzip.compress(b"text")
        upstream.script = upstream.answer(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s"
            % (len(packed), packed)
        )
        assert await get(client) == (200, packed)

    async def test_proxy_of_the_environment_is_not_used(
        self, client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert await get(client) == (200, b"ok")

    async def test_body_is_streamed_with_the_length_that_was_announced(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        got: list[bytes] = []

        async def script(wire: Wire) -> None:
            upstream.requests.append(await wire.head())
            got.append(await wire.read(6))
            await wire.send(OK)

        async def body() -> AsyncIterator[bytes]:
            yield b"abc"
            yield b"def"

        upstream.script = script
        async with await client.send("POST", "/", {"Content-Length": "6"}, body()) as exchange:
            assert exchange.status == 200
        assert got == [b"abcdef"]
        assert b"chunked" not in upstream.requests[0].lower()

    async def test_body_of_unknown_length_is_sent_in_chunks(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        got: list[bytes] = []

        async def script(wire: Wire) -> None:
            upstream.requests.append(await wire.head())
            got.append(await wire.read(len(b"3\r\nabc\r\n0\r\n\r\n")))
            await wire.send(OK)

        async def body() -> AsyncIterator[bytes]:
            yield b"abc"

        upstream.script = script
        async with await client.send("PUT", "/", {}, body()) as exchange:
            assert exchange.status == 200
        assert got == [b"3\r\nabc\r\n0\r\n\r\n"]

    async def test_chunks_are_there_as_they_come(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        read = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(CHUNKED + b"3\r\none\r\n")
            await read.wait()
            await wire.send(b"3\r\ntwo\r\n0\r\n\r\n")

        upstream.script = script
        async with await client.send("GET", "/", {}, streaming=True) as exchange:
            chunks = exchange.chunks()
            assert await anext(chunks) == b"one"
            read.set()
            assert [chunk async for chunk in chunks] == [b"two"]

    @pytest.mark.parametrize(
        ("kind", "streams"),
        [
            ("text/event-stream", True),
            ("Text/Event-Stream; charset=utf-8", True),
            ("text/plain", False),
            ("application/json", False),
        ],
    )
    async def test_event_stream_is_known_by_its_type(
        self, client: UpstreamClient, upstream: RawUpstream, kind: str, *, streams: bool
    ) -> None:
        upstream.script = upstream.answer(
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 0\r\n\r\n" % kind.encode()
        )
        async with await client.send("GET", "/", {}) as exchange:
            assert exchange.streams_events is streams


class TestConnections:
    async def test_connection_is_used_again_after_a_body_was_read(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        for _ in range(3):
            await get(client)
        assert upstream.connections == 1

    async def test_connection_is_dropped_when_a_body_was_not_read(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        """What is left of it would be taken for the next answer."""
        upstream.script = upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nsome")
        async with await client.send("GET", "/", {}):
            pass
        upstream.script = upstream.answer(OK)
        assert await get(client) == (200, b"ok")
        assert upstream.connections == 2

    async def test_upstream_hears_of_a_reader_that_left(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        heard = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(CHUNKED + b"3\r\none\r\n")
            await wire.left()
            heard.set()

        upstream.script = script
        async with await client.send("GET", "/", {}, streaming=True) as exchange:
            assert await anext(exchange.chunks()) == b"one"
        await heard.wait()

    async def test_pool_that_is_full_answers_instead_of_waiting_for_ever(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        upstream.script = silent
        async with opened(upstream.url, metrics, max_connections=1, queue_timeout=0.05) as client:
            first = asyncio.create_task(client.send("GET", "/", {}))
            await upstream.heard.wait()
            with pytest.raises(UpstreamOverloaded) as caught:
                await client.send("GET", "/", {})
            first.cancel()
        assert caught.value.headers["Retry-After"] == "1"
        assert errors(metrics, "overloaded") == 1

    async def test_more_waiting_than_may_wait_are_turned_away_at_once(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        upstream.script = silent
        async with opened(upstream.url, metrics, max_connections=1, max_waiting=0) as client:
            first = asyncio.create_task(client.send("GET", "/", {}))
            await upstream.heard.wait()
            with pytest.raises(UpstreamOverloaded):
                await client.send("GET", "/", {})
            first.cancel()

    async def test_who_waits_gets_the_place_of_who_leaves(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        upstream.script = silent
        async with opened(upstream.url, metrics, max_connections=1) as client:
            first = asyncio.create_task(client.send("GET", "/", {}))
            await upstream.heard.wait()
            upstream.script = upstream.answer(OK)
            second = asyncio.create_task(get(client))
            first.cancel()
            assert await second == (200, b"ok")

    async def test_streams_take_no_requests_place(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        async def stream(wire: Wire) -> None:
            await wire.head()
            await wire.send(CHUNKED + b"3\r\none\r\n")
            await wire.left()

        upstream.script = stream
        async with (
            opened(upstream.url, metrics, max_connections=1, max_streams=1) as client,
            await client.send("GET", "/stream", {}, streaming=True),
        ):
            with pytest.raises(UpstreamOverloaded):
                await client.send("GET", "/stream", {}, streaming=True)
            upstream.script = upstream.answer(OK)
            assert await get(client) == (200, b"ok")

    async def test_gateways_own_questions_wait_for_no_place(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        upstream.script = silent
        async with opened(upstream.url, metrics, max_connections=1, max_waiting=0) as client:
            first = asyncio.create_task(client.send("GET", "/", {}))
            await upstream.heard.wait()
            upstream.script = upstream.answer(OK)
            answer = await client.fetch("GET", "/", {}, limit=10, seconds=5)
            first.cancel()
        assert answer.body == b"ok"

    async def test_idle_connection_is_not_kept_longer_than_the_upstream_keeps_it(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        left = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(OK)
            await wire.left()
            left.set()

        upstream.script = script
        async with opened(upstream.url, metrics, keepalive=0.05) as client:
            await get(client)
            await left.wait()
            assert metrics.upstream_connections._value.get() == 0

    async def test_client_that_is_not_open_says_so(self, metrics: Metrics) -> None:
        client = UpstreamClient(Upstream(), metrics)
        with pytest.raises(RuntimeError, match="not open"):
            await client.send("GET", "/", {})
        await client.close()


class TestFailures:
    """Each has its own error and is counted by its reason."""

    async def fails(
        self, client: UpstreamClient, metrics: Metrics, kind: type[UpstreamError]
    ) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            await client.send("GET", "/", {})
        assert type(caught.value) is kind
        assert errors(metrics, kind.reason) == 1
        return caught.value

    async def test_nobody_listens(self, metrics: Metrics) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
            port = taken.getsockname()[1]
            async with opened(f"http://127.0.0.1:{port}", metrics) as client:
                error = await self.fails(client, metrics, UpstreamRefused)
        assert error.status == 502
        # What clients read must not tell where the upstream is.
        assert "127.0.0.1" not in error.detail
        assert str(port) not in error.detail

    async def test_connection_is_closed_without_an_answer(
        self, client: UpstreamClient, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()

        upstream.script = script
        error = await self.fails(client, metrics, UpstreamReset)
        assert error.status == 502

    async def test_connection_is_reset(
        self, client: UpstreamClient, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            wire.reset()

        upstream.script = script
        await self.fails(client, metrics, UpstreamReset)

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            b"HTTP/1.1 banana\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nNo colon here\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        ],
    )
    async def test_answer_is_not_http(
        self, client: UpstreamClient, upstream: RawUpstream, metrics: Metrics, answer: bytes
    ) -> None:
        upstream.script = upstream.answer(answer)
        error = await self.fails(client, metrics, UpstreamMalformed)
        assert error.status == 502

    async def test_no_answer_in_time(self, upstream: RawUpstream, metrics: Metrics) -> None:
        async def script(wire: Wire) -> None:
            await wire.left()

        upstream.script = script
        async with opened(upstream.url, metrics, response_timeout=0.05) as client:
            error = await self.fails(client, metrics, UpstreamTimeout)
        assert error.status == 504

    async def test_stream_may_be_silent_longer_than_an_answer(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        late = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.head()
            await late.wait()
            await wire.send(OK)

        upstream.script = script
        async with opened(upstream.url, metrics, response_timeout=0.05) as client:
            streaming = asyncio.ensure_future(client.send("GET", "/", {}, streaming=True))
            with pytest.raises(UpstreamTimeout):
                await client.send("GET", "/", {})
            assert not streaming.done()
            late.set()
            async with await streaming as exchange:
                assert exchange.status == 200

    async def test_stream_that_is_silent_too_long_ends(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(CHUNKED + b"3\r\none\r\n")
            await wire.left()

        upstream.script = script
        async with (
            opened(upstream.url, metrics, idle_timeout=0.05) as client,
            await client.send("GET", "/", {}, streaming=True) as exchange,
        ):
            chunks = exchange.chunks()
            assert await anext(chunks) == b"one"
            with pytest.raises(UpstreamTimeout):
                await anext(chunks)

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf",
            CHUNKED + b"5\r\nhal",
            CHUNKED + b"4\r\nhalf\r\n",
        ],
    )
    async def test_body_that_breaks_off_is_not_taken_for_whole(
        self, client: UpstreamClient, upstream: RawUpstream, answer: bytes
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(answer)

        upstream.script = script
        async with await client.send("GET", "/", {}) as exchange:
            with pytest.raises(UpstreamReset):
                await exchange.read(1 << 20)


class TestFetch:
    async def test_whole_small_answer(self, client: UpstreamClient) -> None:
        answer = await client.fetch("GET", "/", {}, limit=2, seconds=5)
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.headers["content-length"] == "2"

    async def test_answer_beyond_the_limit_is_refused(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        with pytest.raises(ContentTooLarge):
            await client.fetch("GET", "/", {}, limit=1, seconds=5)
        # Its connection was dropped; the next answer is not what was left of this one.
        assert (await client.fetch("GET", "/", {}, limit=2, seconds=5)).body == b"ok"

    async def test_endless_answer_is_refused_by_its_size(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(CHUNKED)
            while True:
                await wire.send(b"400\r\n" + b"x" * 1024 + b"\r\n")

        upstream.script = script
        with pytest.raises(ContentTooLarge):
            await client.fetch("GET", "/", {}, limit=10_000, seconds=5)

    async def test_answer_that_drips_is_given_up(
        self, client: UpstreamClient, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(CHUNKED)
            while True:
                await wire.send(b"1\r\nx\r\n")
                await asyncio.sleep(0.01)

        upstream.script = script
        with pytest.raises(UpstreamTimeout):
            await client.fetch("GET", "/", {}, limit=1 << 30, seconds=0.05)
        assert errors(metrics, "timeout") == 1

    async def test_failure_is_the_one_of_send(self, metrics: Metrics) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with opened(f"http://127.0.0.1:{taken.getsockname()[1]}", metrics) as client:
                with pytest.raises(UpstreamRefused):
                    await client.fetch("GET", "/", {}, limit=1, seconds=5)


class TestFraming:
    """What is not one answer with one end is refused, and its connection never used again."""

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n",
            b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX: a\x00\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
            b"HTTP/1.1 600 What\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            CHUNKED + b"2\r\nok\r\n0\r\nX: " + b"a" * 700_000,
            CHUNKED + b"2;" + b"x" * 700_000,
            OK + OK,
        ],
    )
    async def test_ambiguous_answer_is_malformed(
        self, client: UpstreamClient, upstream: RawUpstream, answer: bytes
    ) -> None:
        upstream.script = upstream.answer(answer)
        with pytest.raises(UpstreamMalformed):
            await get(client)
        upstream.script = upstream.answer(OK)
        assert await get(client) == (200, b"ok")
        assert upstream.connections == 2

    async def test_bytes_that_come_later_end_the_connection(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        answered = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(OK)
            await answered.wait()
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            await wire.left()
            upstream.heard.set()

        upstream.script = script
        assert await get(client) == (200, b"ok")
        answered.set()
        await upstream.heard.wait()
        upstream.script = upstream.answer(OK)
        assert await get(client) == (200, b"ok")

    @pytest.mark.parametrize(
        "length", [b"Content-Length: 9\r\n", b"", b"Transfer-Encoding: chunked\r\n"]
    )
    async def test_answer_to_head_ends_with_its_head(
        self, client: UpstreamClient, upstream: RawUpstream, length: bytes
    ) -> None:
        upstream.script = upstream.answer(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        for _ in range(2):
            async with await client.send("HEAD", "/", {}) as exchange:
                assert exchange.complete == b""
        assert upstream.connections == 1

    @pytest.mark.parametrize("status", [204, 304])
    async def test_answers_without_a_body_leave_the_connection_usable(
        self, client: UpstreamClient, upstream: RawUpstream, status: int
    ) -> None:
        upstream.script = upstream.answer(b"HTTP/1.1 %d X\r\nETag: a\r\n\r\n" % status)
        for _ in range(2):
            assert await get(client) == (status, b"")
        assert upstream.connections == 1

    async def test_interim_answers_are_passed_over(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        upstream.script = upstream.answer(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
        )
        async with await client.send("GET", "/", {}) as exchange:
            assert (exchange.status, exchange.complete) == (200, b"ok")
            assert "Link" not in exchange.headers

    async def test_who_asks_is_told_of_interim_answers(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        told: list[tuple[int, list[tuple[str, str]]]] = []
        upstream.script = upstream.answer(
            b"HTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 102 Processing\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX: 1\r\n\r\n" + OK
        )
        for _ in range(2):
            exchange = await client.send(
                "GET", "/", {}, interim=lambda status, fields: told.append((status, [*fields]))
            )
            async with exchange:
                assert (exchange.status, exchange.complete) == (200, b"ok")
        await get(client)

        assert told == [(102, []), (103, [("Link", "</a>"), ("X", "1")])] * 2

    @pytest.mark.parametrize(
        "answer",
        [
            OK + b"and more",
            OK + OK,
            OK.replace(b"Content-Length", b"Transfer-Encoding: made-up\r\nX"),
        ],
    )
    async def test_tolerance_ends_a_body_where_it_was_announced_to(
        self, upstream: RawUpstream, metrics: Metrics, answer: bytes
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(answer)

        upstream.script = script
        async with opened(upstream.url, metrics, framing="tolerant") as client:
            for _ in range(2):
                assert await get(client) == (200, b"ok")
        assert upstream.connections == 2

    @pytest.mark.parametrize(
        "answer",
        [
            OK.replace(b"Content-Length", b"Transfer-Encoding: gzip\r\nX"),
            OK.replace(b"Content-Length", b"Transfer-Encoding: x, chunked\r\nX"),
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: x\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        ],
    )
    async def test_tolerance_does_not_guess(
        self, upstream: RawUpstream, metrics: Metrics, answer: bytes
    ) -> None:
        upstream.script = upstream.answer(answer)
        async with opened(upstream.url, metrics, framing="tolerant") as client:
            with pytest.raises(UpstreamMalformed):
                await get(client)

    async def test_trailers_are_dropped(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        upstream.script = upstream.answer(CHUNKED + b"2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n")
        for _ in range(2):
            async with await client.send("GET", "/", {}) as exchange:
                assert exchange.complete == b"ok"
                assert "X-Trailer" not in exchange.headers
        assert upstream.connections == 1

    async def test_body_without_a_length_ends_with_the_connection(
        self, client: UpstreamClient, upstream: RawUpstream
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")

        upstream.script = script
        assert await get(client) == (200, b"all of it")

    @settings(max_examples=60, deadline=None)
    @given(cuts=st.lists(st.integers(1, 120), max_size=6))
    def test_it_does_not_matter_in_which_pieces_an_answer_comes(self, cuts: list[int]) -> None:
        whole = (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked"
            b"\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nT: u\r\n\r\n"
        )
        found = pieces(whole, cuts)
        connection, ended = wired()
        exchange = connection.begin(b"", Timeouts(1, 1, None), Expected(), has_body=False)
        for piece in found:
            connection.data_received(piece)
        assert (exchange.status, exchange.headers["X-A"]) == (200, "b")
        assert exchange.complete == b"abcdefg"
        assert ended == [True]


def pieces(whole: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, *(cut for cut in cuts if cut < len(whole)), len(whole)})
    return [whole[a:b] for a, b in itertools.pairwise(places)]


def wired() -> tuple[Connection, list[bool]]:
    """A connection on a transport that goes nowhere, and what it told when its exchange ended."""
    ended: list[bool] = []
    connection = Connection(
        lambda: 0.0,
        ended=lambda _, reusable: ended.append(reusable),
        broke=lambda _: None,
        lost=lambda _: None,
    )
    transport = mock.Mock(spec=asyncio.Transport)
    transport.is_closing.return_value = False
    connection.connection_made(transport)
    return connection, ended


class TestAgain:
    """A second try where it is safe, and only there."""

    async def test_idle_connection_closed_by_the_upstream_is_replaced(
        self, upstream: RawUpstream, client: UpstreamClient, metrics: Metrics
    ) -> None:
        await stale(upstream, client)
        assert await get(client) == (200, b"ok")
        assert metrics.upstream_retries_total.labels("stale")._value.get() == 1

    async def test_creation_is_never_sent_twice(
        self, upstream: RawUpstream, client: UpstreamClient
    ) -> None:
        await stale(upstream, client)
        with pytest.raises(UpstreamReset):
            await client.send("POST", "/", {}, b"{}")
        assert len(upstream.requests) == 2  # the first, and the one that broke

    async def test_answer_that_began_is_not_asked_for_again(
        self, upstream: RawUpstream, client: UpstreamClient
    ) -> None:
        async def script(wire: Wire) -> None:
            upstream.requests.append(await wire.head())
            await wire.send(b"HTTP/1.1 200")

        upstream.script = script
        with pytest.raises(UpstreamReset):
            await get(client)
        assert len(upstream.requests) == 1

    async def test_budget_bounds_second_tries(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        async def script(wire: Wire) -> None:
            upstream.requests.append(await wire.head())

        upstream.script = script
        retry = {"share": 0.0, "per_second": 0.0}
        async with opened(upstream.url, metrics, retry=retry) as client:
            with pytest.raises(UpstreamReset):
                await get(client)
        assert len(upstream.requests) == 1


async def stale(upstream: RawUpstream, client: UpstreamClient) -> None:
    """Leave the client with an idle connection that breaks at its next request."""

    async def once(wire: Wire) -> None:
        upstream.requests.append(await wire.head())
        await wire.send(OK)
        upstream.requests.append(await wire.head())
        wire.reset()

    upstream.script = once
    await get(client)
    upstream.script = upstream.answer(OK)


class TestBreaker:
    async def test_upstream_that_keeps_failing_is_left_alone(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        async def script(wire: Wire) -> None:
            upstream.requests.append(await wire.head())
            await wire.send(b"garbage\r\n\r\n")

        upstream.script = script
        async with opened(upstream.url, metrics, breaker={"failures": 2, "open": 60.0}) as client:
            for _ in range(2):
                with pytest.raises(UpstreamMalformed):
                    await get(client)
            with pytest.raises(UpstreamUnavailable) as caught:
                await get(client)
            assert len(upstream.requests) == 2
            assert int(caught.value.headers["Retry-After"]) in range(1, 61)
            assert metrics.upstream_breaker_state._value.get() == 2
            # Health is asked all the same, and says nothing of what clients ask.
            upstream.script = upstream.answer(OK)
            await client.fetch("GET", "/health", {}, limit=10, seconds=5)
            assert metrics.upstream_breaker_state._value.get() == 2

    async def test_upstream_that_answers_again_is_asked_again(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        upstream.script = upstream.answer(b"garbage\r\n\r\n")
        async with opened(upstream.url, metrics, breaker={"failures": 1, "open": 0.001}) as client:
            with pytest.raises(UpstreamMalformed):
                await get(client)
            upstream.script = upstream.answer(OK)
            await asyncio.sleep(0.002)  # the time it is left alone is what is under test
            assert await get(client) == (200, b"ok")
            assert metrics.upstream_breaker_state._value.get() == 0

    async def test_gateways_own_failures_do_not_open_it(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        upstream.script = upstream.answer(b"garbage\r\n\r\n")
        async with opened(upstream.url, metrics, breaker={"failures": 1, "open": 60.0}) as client:
            with pytest.raises(UpstreamMalformed):
                await client.fetch("GET", "/health", {}, limit=10, seconds=5)
            upstream.script = upstream.answer(OK)
            assert await get(client) == (200, b"ok")


class TestTunnel:
    SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
    ASKING: ClassVar[dict[str, str]] = {"Connection": "Upgrade", "Upgrade": "x"}

    async def test_bytes_pass_both_ways_and_each_way_ends_by_itself(
        self, upstream: RawUpstream, client: UpstreamClient
    ) -> None:
        async def echo(wire: Wire) -> None:
            await wire.head()
            await wire.send(self.SWITCHING + b"first")
            await wire.send(await wire.read(4))
            await wire.left()
            await wire.send(b"bye")

        upstream.script = echo
        exchange = await client.send("GET", "/", self.ASKING)
        tunnel = exchange.tunnel()
        assert await tunnel.read() == b"first"
        tunnel.write(b"ping")
        await tunnel.drain()
        assert await tunnel.read() == b"ping"
        tunnel.write_eof()
        assert await tunnel.read() == b"bye"
        assert await tunnel.read() == b""
        tunnel.close()

    async def test_silence_both_ways_ends_it(self, upstream: RawUpstream, metrics: Metrics) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(self.SWITCHING)
            await wire.left()

        upstream.script = script
        async with opened(upstream.url, metrics, idle_timeout=0.05) as client:
            tunnel = (await client.send("GET", "/", self.ASKING)).tunnel()
            with pytest.raises(UpstreamTimeout):
                await tunnel.read()

    async def test_only_a_101_becomes_a_tunnel(self, client: UpstreamClient) -> None:
        async with await client.send("GET", "/", self.ASKING) as exchange:
            with pytest.raises(RuntimeError, match="101"):
                exchange.tunnel()


class TestBodies:
    async def test_large_bodies_pass_in_little_memory(
        self, upstream: RawUpstream, client: UpstreamClient
    ) -> None:
        """What a reader leaves stays with the sender: at most the buffer is ever held."""
        total, piece = 32 << 20, b"x" * 65536

        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
            for _ in range(total // len(piece)):
                await wire.send(piece)

        upstream.script = script
        async with await client.send("GET", "/", {}) as exchange:
            size = most = 0
            async for chunk in exchange.chunks():
                size += len(chunk)
                most = max(most, exchange._inflow.size)
        assert size == total
        assert most <= 1 << 20

    async def test_answer_may_come_before_the_body_is_out(
        self, upstream: RawUpstream, client: UpstreamClient
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            await wire.left()

        async def endless() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

        upstream.script = script
        async with await client.send("POST", "/", {}, endless()) as exchange:
            assert exchange.status == 413
        upstream.script = upstream.answer(OK)
        assert await get(client) == (200, b"ok")
        assert upstream.connections == 2

    async def test_body_that_fails_ends_the_request_with_its_own_error(
        self, upstream: RawUpstream, client: UpstreamClient
    ) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield b"x"
            raise ContentTooLarge("too much")

        upstream.script = silent
        with pytest.raises(ContentTooLarge):
            await client.send("POST", "/", {}, failing())

    @pytest.mark.parametrize("length", ["1", "3"])
    async def test_body_of_another_length_than_announced_is_never_finished(
        self, upstream: RawUpstream, client: UpstreamClient, length: str
    ) -> None:
        async def two() -> AsyncIterator[bytes]:
            yield b"ab"

        upstream.script = silent
        with pytest.raises(ValueError, match="announced"):
            await client.send("POST", "/", {"Content-Length": length}, two())

    async def test_line_break_in_a_field_never_leaves(self, client: UpstreamClient) -> None:
        with pytest.raises(ValueError, match="line break"):
            await client.send("GET", "/", {"X": "a\r\nY: b"})


class TestAddresses:
    async def test_unix_socket(self, tmp_path: Path, metrics: Metrics) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(OK if b"Host: localhost" in head else b"")
            writer.close()

        path = tmp_path / "app.sock"
        async with (
            await asyncio.start_unix_server(serve, path),
            opened(f"unix:{path}", metrics) as client,
        ):
            assert await get(client) == (200, b"ok")

    async def test_tls_upstream_is_verified(self, tmp_path: Path, metrics: Metrics) -> None:
        certificate, key = self_signed(tmp_path)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(OK)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            trusted = {"ca": str(certificate), "server_name": "app.example"}
            async with opened(url, metrics, tls=trusted) as client:
                assert await get(client) == (200, b"ok")
            async with opened(url, metrics, tls={"ca": str(certificate)}) as client:
                with pytest.raises(UpstreamRefused):
                    await get(client)
            async with opened(url, metrics) as client:
                with pytest.raises(UpstreamRefused):
                    await get(client)


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for app.example, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=app.example"),
            *("-addext", "subjectAltName=DNS:app.example"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


class TestFairness:
    """What one side does is not laid to the other's charge."""

    async def test_places_are_never_more_than_the_limit(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        now = most = 0

        async def script(wire: Wire) -> None:
            nonlocal now, most
            with suppress(asyncio.IncompleteReadError):
                while True:
                    await wire.head()
                    now += 1
                    most = max(most, now)
                    await asyncio.sleep(0)  # others get their turn while this one is under way
                    now -= 1
                    await wire.send(OK)

        upstream.script = script
        async with opened(upstream.url, metrics, max_connections=2) as client:
            answers = await asyncio.gather(*(get(client) for _ in range(40)))
        assert set(answers) == {(200, b"ok")}
        assert (most <= 2, upstream.connections) == (True, 2)

    async def test_client_that_pauses_in_its_body_is_not_the_upstreams_failure(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        go_on = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.head()
            upstream.heard.set()
            await wire.read(len(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"))
            await wire.send(OK)

        async def slow() -> AsyncIterator[bytes]:
            yield b"a"
            await go_on.wait()
            yield b"b"

        upstream.script = script
        async with opened(upstream.url, metrics, response_timeout=0.1) as client:
            sending = asyncio.create_task(client.send("POST", "/", {}, slow()))
            await upstream.heard.wait()
            await asyncio.sleep(0.3)  # three times the time-out: the pause is what is under test
            go_on.set()
            async with await sending as exchange:
                assert exchange.status == 200

    async def test_sender_of_a_body_ends_with_its_exchange(
        self, upstream: RawUpstream, client: UpstreamClient
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            await asyncio.Event().wait()  # it neither reads nor closes

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65536

        upstream.script = script
        async with await client.send("POST", "/", {}, endless()) as exchange:
            assert exchange.status == 413
        await asyncio.gather(*client._senders, return_exceptions=True)
        assert client._pool is not None
        assert client._pool.open_count == 0

    async def test_break_within_a_body_is_counted(
        self, upstream: RawUpstream, client: UpstreamClient, metrics: Metrics
    ) -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

        upstream.script = script
        async with await client.send("GET", "/", {}) as exchange:
            with pytest.raises(UpstreamReset):
                await exchange.read(100)
        assert errors(metrics, "reset") == 1

    async def test_gateways_own_questions_take_no_clients_place(
        self, upstream: RawUpstream, metrics: Metrics
    ) -> None:
        upstream.script = silent
        async with opened(upstream.url, metrics, max_connections=1, max_waiting=0) as client:
            own = asyncio.create_task(client.send("GET", "/", {}, essential=True))
            await upstream.heard.wait()
            upstream.script = upstream.answer(OK)
            assert await get(client) == (200, b"ok")
            own.cancel()
