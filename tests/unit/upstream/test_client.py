"""The only caller of the job API: it passes on what it is given, and tells every failure apart."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.core.error import (
    ContentTooLarge,
    UpstreamError,
    UpstreamMalformed,
    UpstreamRefused,
    UpstreamReset,
    UpstreamTimeout,
)
from gateway.settings.model import Upstream
from gateway.telemetry.metric import Metrics
from gateway.upstream.client import UpstreamClient

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Script = Callable[["Wire"], Awaitable[None]]


class Wire:
    """One connection of the upstream's: what came in, and whatever it wants to send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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


class RawUpstream:
    """Speaks HTTP as a test scripts it, byte by byte."""

    def __init__(self) -> None:
        self.connections = 0
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
                await self.script(Wire(reader, writer))
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
            ["X-One: 1", "X-One: 2", "Accept-Encoding: br", "Host: api.example"]
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
            assert exchange.headers["X-Raw"] == "\xe9"

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
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.send(CHUNKED + b"3\r\none\r\n")
            await wire.left()

        upstream.script = script
        async with (
            opened(upstream.url, metrics, max_connections=1, response_timeout=0.05) as client,
            await client.send("GET", "/stream", {}, streaming=True),
        ):
            with pytest.raises(UpstreamTimeout):
                await client.send("GET", "/", {})
        assert errors(metrics, "timeout") == 1

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
