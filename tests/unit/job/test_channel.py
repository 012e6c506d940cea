"""One job's stream: each event made once, told to all who read, and kept for those who return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.core.error import UpstreamError
from gateway.core.sse import ServerEvent
from gateway.job import channel as channel_module
from gateway.job.channel import AT_ONCE, HEARTBEAT, Channel
from gateway.job.feed import EVICTED, Feed
from gateway.settings.job import FanOut
from gateway.telemetry.metric import Metrics

HELLO = ServerEvent("connected", b'{"event": "connected"}')
FAREWELL = ServerEvent("stream_ended", b'{"event": "stream_ended"}')
GREETING = b'event: connected\ndata: {"event": "connected"}\n\n'
GOODBYE = b'event: stream_ended\ndata: {"event": "stream_ended"}\n\n'


def progress(number: int) -> ServerEvent:
    return ServerEvent("progress", b'{"n": %d}' % number)


def told(number: int, event_id: int | None = None) -> bytes:
    line = b"" if event_id is None else b"id: %d\n" % event_id
    return b'event: progress\ndata: {"n": %d}\n%s\n' % (number, line)


class Outlet:
    """A client's connection that sends nothing on before it is told to."""

    def __init__(self, *, is_slow: bool = False) -> None:
        self.chunks = b""
        self.waiting = 0
        self.is_slow = is_slow
        self.ended: bool | None = None

    def take(self, chunks: bytes) -> int:
        self.chunks += chunks
        self.waiting += len(chunks) if self.is_slow else 0
        return self.waiting or len(chunks)

    def finish(self, *, complete: bool) -> None:
        self.ended = complete


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest_asyncio.fixture
async def channel(metrics: Metrics) -> AsyncIterator[Channel]:
    channel = Channel(FanOut(replay=4, max_backlog=200), metrics)
    channel.greet(HELLO, anew=True)
    for number in (1, 2, 3):
        channel.show(progress(number), number)
    yield channel
    channel.close()


async def everything(feed: Feed) -> bytes:
    return b"".join([piece async for piece in feed])


async def test_newcomer_gets_the_greeting_and_how_the_job_stands(channel: Channel) -> None:
    assert await anext(channel.join(None)) == GREETING + told(3, 3)


async def test_who_comes_back_gets_what_followed(channel: Channel) -> None:
    assert await anext(channel.join(1)) == GREETING + told(2, 2) + told(3, 3)


async def test_who_missed_nothing_gets_nothing_twice(channel: Channel) -> None:
    assert await anext(channel.join(3)) == GREETING


async def test_who_knows_more_is_not_set_back(channel: Channel) -> None:
    assert await anext(channel.join(9)) == GREETING


async def test_what_is_no_longer_kept_is_missed(channel: Channel) -> None:
    for number in (4, 5, 6):
        channel.show(progress(number), number)
    kept = [told(number, number) for number in (3, 4, 5, 6)]
    assert await anext(channel.join(1)) == GREETING + b"".join(kept)


async def test_an_event_that_recorded_nothing_new_has_no_id(channel: Channel) -> None:
    feed = channel.join(None)
    await anext(feed)
    channel.show(progress(4), 3)
    channel.show(progress(5), 4)
    assert await everything_of(feed, channel) == told(4) + told(5, 4)


async def everything_of(feed: Feed, channel: Channel) -> bytes:
    channel.finish(complete=True)
    return await everything(feed)


async def test_readers_see_what_is_told_and_the_end(channel: Channel) -> None:
    feed = channel.join(None)
    await anext(feed)
    channel.show(progress(4), 4)
    channel.add(FAREWELL)
    channel.finish(complete=True)
    assert await everything(feed) == told(4, 4) + GOODBYE
    assert feed.is_complete


async def test_late_comer_sees_the_end(channel: Channel) -> None:
    channel.add(FAREWELL)
    channel.finish(complete=True)
    assert await everything(channel.join(None)) == GREETING + told(3, 3) + GOODBYE


async def test_a_stream_that_broke_off_is_seen_to_break(channel: Channel) -> None:
    feed = channel.join(None)
    await anext(feed)
    channel.finish(complete=False)
    with pytest.raises(UpstreamError, match="broke off"):
        await anext(feed)
    assert not feed.is_complete


async def test_who_was_shown_the_job_is_not_greeted_again(channel: Channel) -> None:
    feed = channel.join(None)
    await anext(feed)
    channel.greet(ServerEvent("connected", b"{}"), anew=True)
    channel.show(progress(4), 4)
    assert await anext(feed) == told(4, 4)
    assert await anext(channel.join(None)) == b"event: connected\ndata: {}\n\n" + told(4, 4)


async def test_outlet_gets_chunks_that_all_share(channel: Channel) -> None:
    outlets = [Outlet(), Outlet()]
    for outlet in outlets:
        feed = channel.join(3)
        outlet.chunks += feed.attach(outlet)
        feed.start()
    channel.show(progress(4), 4)
    for outlet in outlets:
        event = told(4, 4)
        assert outlet.chunks == (
            b"%x\r\n%b\r\n%x\r\n%b\r\n" % (len(GREETING), GREETING, len(event), event)
        )
        assert outlet.ended is None
    channel.finish(complete=True)
    assert [outlet.ended for outlet in outlets] == [True, True]


async def test_slow_outlet_is_told_cut_off_and_counted(channel: Channel, metrics: Metrics) -> None:
    slow, quick = Outlet(is_slow=True), Outlet()
    for outlet in (slow, quick):
        channel.join(3).attach(outlet)
    for number in range(4, 20):
        channel.show(progress(number), number)
    assert slow.ended is False
    assert slow.chunks.endswith(b"%x\r\n%b\r\n" % (len(EVICTED), EVICTED))
    assert told(19, 19) not in slow.chunks
    assert quick.ended is None
    assert told(19, 19) in quick.chunks
    assert metrics.stream_evictions_total._value.get() == 1


async def test_slow_reader_gets_why_and_a_break(channel: Channel) -> None:
    feed = channel.join(3)
    for number in range(4, 20):
        channel.show(progress(number), number)
    assert (await anext(feed)).endswith(EVICTED)
    with pytest.raises(UpstreamError):
        await anext(feed)


async def test_one_event_however_large_cuts_nobody_off(channel: Channel) -> None:
    outlet = Outlet()
    channel.join(3).attach(outlet)
    channel.show(ServerEvent("completed", b"x" * 100_000), 4)
    assert outlet.ended is None


async def test_all_of_many_readers_are_told_in_turns(channel: Channel, metrics: Metrics) -> None:
    outlets = [Outlet() for _ in range(3 * AT_ONCE)]
    for outlet in outlets:
        channel.join(3).attach(outlet)
    channel.show(progress(4), 4)
    told_at_once = sum(bool(outlet.chunks) for outlet in outlets)
    late = Outlet()
    channel.join(None).attach(late)
    channel.show(progress(5), 5)
    channel.finish(complete=True)
    await channel.settled()
    assert told_at_once == AT_ONCE
    for outlet in outlets:
        assert outlet.chunks.count(b"event: progress") == 2
        assert outlet.ended is True
    assert late.chunks.count(b"event: progress") == 1  # it joined after the fourth
    assert metrics.registry.get_sample_value("gateway_stream_fan_out_seconds_count") == 2


async def test_silence_is_filled_with_heartbeats(metrics: Metrics) -> None:
    channel = Channel(FanOut(heartbeat=0.01), metrics)
    feed = channel.join(None)
    assert await anext(feed) == HEARTBEAT.data
    feed.close()
    channel.close()


async def test_a_reader_that_leaves_is_forgotten(channel: Channel, metrics: Metrics) -> None:
    feed = channel.join(None)
    assert (channel.reader_count, metrics.stream_readers._value.get()) == (1, 1)
    closed: list[bool] = []
    feed.closers.append(lambda: closed.append(True))
    await feed.aclose()
    feed.close()
    assert (channel.reader_count, metrics.stream_readers._value.get()) == (0, 0)
    assert closed == [True]


async def test_without_readers_little_is_kept(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "_KEPT_SECONDS", -1.0)
    channel.show(progress(4), 4)
    assert await anext(channel.join(1)) == GREETING + told(4, 4)


async def test_a_farewell_ends_a_reader_in_order(channel: Channel) -> None:
    outlet = Outlet()
    feed = channel.join(3)
    feed.attach(outlet)
    feed.end(b": bye\n\n")
    assert outlet.chunks == b"7\r\n: bye\n\n\r\n"
    assert outlet.ended is True
    channel.show(progress(4), 4)
    assert told(4, 4) not in outlet.chunks


async def test_what_ended_before_it_was_sent_ends_with_it(channel: Channel) -> None:
    outlet = Outlet()
    feed = channel.join(3)
    channel.finish(complete=True)
    await asyncio.sleep(0)
    first = feed.attach(outlet)
    assert outlet.ended is None
    feed.start()
    assert GREETING in first
    assert outlet.ended is True
