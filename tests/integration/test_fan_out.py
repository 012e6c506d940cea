"""One observation of a job serves every client that streams it, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from gateway.app.gateway import Gateway
from gateway.core.sse import EventParser
from gateway.job.feed import EVICTED
from tests.support.lane import Wire, connected, get, parse_reply_head
from tests.support.system import eventually
from tests.support.tale import (
    CONNECTED,
    ENDED,
    JOB_ID,
    KEY,
    STREAM,
    Tale,
    completed,
    progress,
    telling,
)

READERS = 1000


@dataclass
class Setup:
    """The upstream, the gateway before it, and clients of it."""

    tale: Tale
    gateway: Gateway
    port: int
    admin: int

    async def create(self) -> None:
        """Create the job."""
        url = f"http://127.0.0.1:{self.port}/api/v1/analysis"
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, json={"url": "x"}, headers={"X-API-Key": KEY}) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def cancel(self) -> None:
        """Cancel it."""
        url = f"http://127.0.0.1:{self.port}/api/v1/queue/jobs/{JOB_ID}"
        async with (
            aiohttp.ClientSession() as session,
            session.delete(url, headers={"X-API-Key": KEY}) as answer,
        ):
            assert answer.status == 200, await answer.text()

    @asynccontextmanager
    async def reader(self, *lines: str, query: str = "") -> AsyncIterator[Reader]:
        """A client that streams the job."""
        async with connected(self.port) as wire:
            await wire.send(get(STREAM + query, f"X-API-Key: {KEY}", *lines))
            reply, _ = parse_reply_head(await wire.reader.readuntil(b"\r\n\r\n"))
            yield Reader(wire, reply.status, reply.get("Content-Type"))

    async def metric(self, name: str) -> float:
        """A series without labels."""
        url = f"http://127.0.0.1:{self.admin}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith(f"gateway_{name} "):
                    return float(line.rpartition(" ")[2])
        raise AssertionError(f"there is no {name}")


class Reader:
    """One client's stream."""

    def __init__(self, wire: Wire, status: int, kind: str | None) -> None:
        self.wire = wire
        self.status = status
        self.kind = kind
        self.seen = b""

    async def until(self, end: bytes) -> bytes:
        """All up to these bytes, which must come."""
        async with asyncio.timeout(20):
            while end not in self.seen:
                piece = await self._piece()
                assert piece, f"the stream ended at {self.seen[-200:]!r}"
                self.seen += piece
        return self.seen

    async def rest(self) -> bytes:
        """All up to the end in order."""
        async with asyncio.timeout(20):
            while piece := await self._piece():
                self.seen += piece
        return self.seen

    async def _piece(self) -> bytes:
        size = int(await self.wire.reader.readuntil(b"\r\n"), 16)
        piece = await self.wire.reader.readexactly(size)
        assert await self.wire.reader.readexactly(2) == b"\r\n"
        return piece


def names(stream: bytes) -> list[str]:
    return [each.name for each in EventParser().feed(stream)]


@asynccontextmanager
async def setup_of(folder: Path, **settings: Any) -> AsyncIterator[Setup]:
    async with telling(folder, **settings) as (tale, gateway, port, admin):
        yield Setup(tale, gateway, port, admin)


@pytest_asyncio.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    """A job that the gateway follows, and that has shown itself once."""
    async with setup_of(tmp_path) as setup:
        await setup.create()
        await setup.tale.followed()
        setup.tale.tell(progress(10))
        yield setup


async def test_a_thousand_clients_make_one_upstream_stream(setup: Setup) -> None:
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(setup.reader()) for _ in range(READERS)]
        assert await setup.metric("stream_readers") == READERS
        setup.tale.tell(progress(20), completed(), ENDED)
        setup.tale.end()
        streams = {await reader.rest() for reader in readers}
        for reader in readers:  # the connection is there for more
            assert not reader.wire.reader.at_eof()
    assert setup.tale.opened == 1
    for stream in streams:  # those that joined before the first event and those after
        assert names(stream)[-4:] == ["progress", "progress", "completed", "stream_ended"]
    assert len(streams) == 1
    assert await setup.metric("stream_readers") == 0


@pytest.mark.parametrize("lane", [(), ("Connection: keep-alive",)], ids=["fast", "full"])
async def test_events_are_the_upstreams_bytes_and_an_id(
    setup: Setup, lane: tuple[str, ...]
) -> None:
    async with setup.reader(*lane) as reader:
        await reader.until(b'"percentage": 10')
        setup.tale.tell(progress(20), completed(), ENDED)
        setup.tale.end()
        stream = await reader.rest()
    wanted = [CONNECTED, progress(10), progress(20), completed(), ENDED]
    given = [each + b"\n\n" for each in stream.split(b"\n\n")[:-1]]
    lines = [[line for line in each.splitlines() if line[:3] != b"id:"] for each in given]
    assert lines == [each.splitlines() for each in wanted]
    ids = [int(line[4:]) for line in stream.splitlines() if line.startswith(b"id: ")]
    assert ids == sorted(set(ids))
    assert len(ids) == 3  # each that showed the job


async def test_type_goes_by_accept(setup: Setup) -> None:
    for accept, kind in [
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("*/*", "text/plain; charset=utf-8"),
    ]:
        async with setup.reader(f"Accept: {accept}") as reader:
            assert (reader.status, reader.kind) == (200, kind)
    assert setup.tale.opened == 1


async def test_late_comer_gets_the_greeting_and_how_the_job_stands(setup: Setup) -> None:
    async with setup.reader() as first:
        await first.until(b'"percentage": 10')
        setup.tale.tell(progress(20))
        await first.until(b'"percentage": 20')
        async with setup.reader() as late:
            stream = await late.until(b'"percentage": 20')
    assert names(stream) == ["connected", "progress"]


@pytest.mark.parametrize("way", ["header", "query"])
async def test_who_comes_back_gets_what_it_missed(setup: Setup, way: str) -> None:
    async with setup.reader() as first:
        seen = await first.until(b'"percentage": 10')
        setup.tale.tell(progress(20), progress(30))
        await first.until(b'"percentage": 30')
    last = EventParser().feed(seen)[-1].id
    lines, query = (
        ([], f"?last_event_id={last}") if way == "query" else ([f"Last-Event-ID: {last}"], "")
    )
    async with setup.reader(*lines, query=query) as again:
        stream = await again.until(b'"percentage": 30')
    shown = [orjson.loads(each.data) for each in EventParser().feed(stream)[1:]]
    assert [each["progress"]["percentage"] for each in shown] == [20, 30]


async def test_who_saw_the_end_is_told_to_stay_away(setup: Setup) -> None:
    async with setup.reader() as reader:
        setup.tale.tell(completed(), ENDED)
        setup.tale.end()
        stream = await reader.rest()
        last = EventParser().feed(stream)[-1].id
        async with setup.reader(f"Last-Event-ID: {last}") as again:
            assert again.status == 204
        async with setup.reader() as late:
            assert names(await late.rest()) == ["connected", "completed", "stream_ended"]
    assert setup.tale.opened == 1


async def test_readers_stay_while_the_upstreams_stream_breaks_and_is_taken_up(
    setup: Setup,
) -> None:
    async with setup.reader() as reader:
        await reader.until(b'"percentage": 10')
        setup.tale.kill()

        async def again() -> bool:
            return setup.tale.opened >= 2 and setup.tale.open_streams == 1

        await eventually("the stream is taken up again", again)
        setup.tale.tell(progress(50), completed(), ENDED)
        setup.tale.end()
        stream = await reader.rest()
    assert names(stream).count("connected") == 1
    assert names(stream)[-2:] == ["completed", "stream_ended"]
    numbers = [each.id for each in EventParser().feed(stream) if each.id]
    assert [int(each) for each in numbers] == sorted(map(int, numbers))


async def test_a_cancelled_job_is_told_though_its_stream_says_nothing(setup: Setup) -> None:
    async with setup.reader() as reader:
        await reader.until(b'"percentage": 10')
        await setup.cancel()
        stream = await reader.rest()
    assert names(stream)[-2:] == ["cancelled", "stream_ended"]
    assert b'"final_status":"Cancelled"' in stream


async def test_a_job_that_is_polled_is_told_from_its_record(tmp_path: Path) -> None:
    async with setup_of(tmp_path, watch={"source": "poll"}) as setup:
        await setup.create()
        async with setup.reader() as reader:
            await reader.until(b'"percentage":1.0')
            setup.tale.status = {"percentage": 40.0, "current_stage": "Transcribing"}
            await reader.until(b'"percentage":40.0')
            setup.tale.status = {"percentage": 100.0, "current_stage": "Completed"}
            stream = await reader.rest()
    assert names(stream) == ["connected", "progress", "progress", "completed", "stream_ended"]
    assert setup.tale.opened == 0


@pytest.mark.parametrize("line", ["Cookie: a=b", "Authorization: Basic YTpi"])
async def test_who_shows_credentials_of_the_upstreams_is_passed_through(
    setup: Setup, line: str
) -> None:
    async with setup.reader(line):
        await setup.tale.followed(2)


async def test_switched_off_every_client_has_a_stream_of_its_own(tmp_path: Path) -> None:
    async with setup_of(tmp_path, fan_out={"enabled": False}) as setup:
        await setup.create()
        await setup.tale.followed()
        async with setup.reader(), setup.reader():
            await setup.tale.followed(3)


async def test_slow_reader_is_cut_off_while_others_read_on(tmp_path: Path) -> None:
    # More than the buffers of two sockets hold.
    large = b"event: log\ndata: " + b"x" * 500_000 + b"\n\n"
    async with setup_of(tmp_path, fan_out={"max_backlog": "64KiB"}) as setup:
        await setup.create()
        await setup.tale.followed()
        setup.tale.tell(progress(10))
        async with setup.reader() as quick, setup.reader() as slow:
            await slow.until(b'"percentage": 10')
            slow.wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for number in range(40):
                setup.tale.tell(large, progress(11 + number))
                await quick.until(b'"percentage": %d' % (11 + number))
                if await setup.metric("stream_evictions_total"):
                    break
            assert await setup.metric("stream_evictions_total") == 1
            assert await setup.metric("stream_readers") == 1
            setup.tale.tell(completed(), ENDED)
            setup.tale.end()
            assert (await quick.rest()).endswith(b"\n\n")
            slow.wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
            cut = await asyncio.wait_for(_to_the_end(slow), 20)
    assert EVICTED in cut or cut == b"reset"
    assert b"stream_ended" not in cut


async def _to_the_end(reader: Reader) -> bytes:
    try:
        return await reader.wire.reader.read()
    except ConnectionError:
        return b"reset"


async def test_silence_is_filled_with_heartbeats(tmp_path: Path) -> None:
    async with setup_of(tmp_path, fan_out={"heartbeat": "50ms"}) as setup:
        await setup.create()
        await setup.tale.followed()
        async with setup.reader() as reader:
            await reader.until(b": heartbeat\n\n: heartbeat\n\n")


async def test_drain_ends_every_reader_with_a_hint(setup: Setup) -> None:
    async with setup.reader() as fast, setup.reader("Connection: keep-alive") as full:
        for reader in (fast, full):
            await reader.until(b'"percentage": 10')
        setup.gateway.front.server.drain()
        for reader in (fast, full):
            assert (await reader.rest()).endswith(
                b": the gateway restarts, please reconnect\nretry: 1000\n\n"
            )


BROWSER = ("Accept: text/event-stream", "Connection: keep-alive", "Origin: https://app.example")


@pytest.mark.parametrize("lines", [(), BROWSER], ids=["plain", "browser"])
async def test_a_reader_costs_no_task(setup: Setup, lines: tuple[str, ...]) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(setup.reader(*lines))
        await first.until(b'"percentage": 10')
        before = len(asyncio.all_tasks())
        for _ in range(20):
            reader = await stack.enter_async_context(setup.reader(*lines))
            await reader.until(b'"percentage": 10')
        assert len(asyncio.all_tasks()) < before + 10


async def test_a_client_that_leaves_is_forgotten(setup: Setup) -> None:
    async with setup.reader() as reader:
        await reader.until(b'"percentage": 10')

    async def forgotten() -> bool:
        return await setup.metric("stream_readers") == 0

    await eventually("the reader is forgotten", forgotten)
