"""A job's readers are told the upstream's own stream where it is followed, else the record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import orjson
import pytest
import pytest_asyncio

from gateway.core.error import UpstreamError
from gateway.core.job import EventType, Job, JobChange, JobEvent, Observation, State
from gateway.core.rendering import Rendering
from gateway.core.sse import EventParser, ServerEvent
from gateway.job import broadcast as broadcast_module
from gateway.job.broadcast import Broadcasts, Following
from gateway.job.feed import Feed
from gateway.settings.contract import compile_contract
from gateway.settings.job import FanOut, JobContract
from gateway.telemetry.metric import Metrics
from tests.support.job import CONTRACT, NOW

HELLO = ServerEvent("connected", b'{"hello": 1}')
JOB = Job("j1", "", "", "", State.RUNNING, NOW, NOW, sequence=1, stage="a", percentage=1.0)

Make = Callable[..., Broadcasts]


@pytest_asyncio.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Broadcasts that know the jobs they are given; waits for the upstream's words are short."""
    monkeypatch.setattr(broadcast_module, "_AWAITED_SECONDS", 0.001)
    waits = dict.fromkeys(State, 0.001)
    monkeypatch.setattr(broadcast_module, "_LAST_WORDS_SECONDS", waits)
    made: list[Broadcasts] = []
    settings = JobContract.model_validate(CONTRACT)
    rendering = Rendering(compile_contract(settings), settings.states)

    def build(*jobs: Job, renders: bool = True) -> Broadcasts:
        known = {job.id: job for job in jobs}
        broadcasts = Broadcasts(
            FanOut(),
            rendering if renders else None,
            active=known.get,
            metrics=Metrics(),
            now=lambda: NOW,
        )
        made.append(broadcasts)
        return broadcasts

    yield build
    for broadcasts in made:
        broadcasts.close()


def changed(sequence: int, state: State = State.RUNNING, **fields: object) -> JobChange:
    job = replace(JOB, sequence=sequence, state=state, **fields)  # type: ignore[arg-type]
    kind = EventType.CANCELLED if state is State.CANCELLED else EventType.PROGRESS
    return JobChange(JOB, job, (JobEvent(kind, sequence, NOW, JOB.state),))


def shown(state: State = State.RUNNING) -> Observation:
    return Observation("j1", NOW, state=state)


def progress(number: int) -> ServerEvent:
    return ServerEvent("progress", b'{"n": %d}' % number)


async def tell(following: Following, number: int, state: State = State.RUNNING) -> None:
    await following.tell(progress(number), shown(state), replace(JOB, sequence=number))


async def rest(feed: Feed) -> list[ServerEvent]:
    """Every event up to the end, or to the break."""
    parser, events = EventParser(), []
    try:
        async for piece in feed:
            events += parser.feed(piece)
    except UpstreamError:
        events.append(ServerEvent("(broken off)", b""))
    return events


def names(events: list[ServerEvent]) -> list[str]:
    return [event.name for event in events]


async def test_an_unknown_job_is_the_upstreams_to_stream(make: Make) -> None:
    assert make().join("j1", None) is None


async def test_a_job_that_cannot_be_written_is_the_upstreams_too(make: Make) -> None:
    assert make(JOB, renders=False).join("j1", None) is None


async def test_readers_get_the_upstreams_own_stream(make: Make) -> None:
    broadcasts = make(JOB)
    early = broadcasts.join("j1", None)
    assert early is not None
    with broadcasts.follow("j1", "text/plain; charset=utf-8") as following:
        await following.tell(HELLO, None, None)
        await tell(following, 1)
        late = broadcasts.join("j1", None)
        assert late is not None
        await tell(following, 2, State.COMPLETED)
        await following.tell(ServerEvent("stream_ended", b"{}"), None, None)
    wanted = ["connected", "progress", "progress", "stream_ended"]
    assert names(await rest(early)) == names(await rest(late)) == wanted
    assert broadcasts.content_type == "text/plain; charset=utf-8"


async def test_who_saw_the_end_need_not_come_back(make: Make) -> None:
    broadcasts = make(JOB)
    feed = broadcasts.join("j1", None)
    assert feed is not None
    with broadcasts.follow("j1", None) as following:
        await tell(following, 7, State.COMPLETED)
        assert not broadcasts.has_seen_end("j1", 7)  # there is the farewell to come
    assert broadcasts.has_seen_end("j1", 7)
    assert not broadcasts.has_seen_end("j1", 6)
    assert not broadcasts.has_seen_end("j2", 7)


async def test_a_job_followed_elsewhere_is_told_from_its_record(make: Make) -> None:
    broadcasts = make(JOB)
    feed = broadcasts.join("j1", None)
    assert feed is not None
    assert names(EventParser().feed(await anext(feed))) == ["connected", "progress"]
    await broadcasts.noted(changed(2, percentage=50.0))
    await broadcasts.noted(changed(3, State.CANCELLED))
    events = await rest(feed)
    assert names(events) == ["progress", "cancelled", "stream_ended"]
    assert [event.id for event in events] == ["2", "3", "3"]
    assert orjson.loads(events[0].data)["percentage"] == 50.0


async def test_the_record_takes_over_from_a_stream_that_broke_off(make: Make) -> None:
    broadcasts = make(JOB)
    feed = broadcasts.join("j1", None)
    assert feed is not None

    async def break_off() -> None:
        with broadcasts.follow("j1", None) as following:
            await following.tell(HELLO, None, None)
            await tell(following, 2)
            raise UpstreamError("gone")

    with pytest.raises(UpstreamError):
        await break_off()
    await broadcasts.noted(changed(3))
    with broadcasts.follow("j1", None) as following:
        await following.tell(HELLO, None, None)
        await broadcasts.noted(changed(4))  # the stream tells of it itself
        await tell(following, 4, State.COMPLETED)
    events = await rest(feed)
    assert [(event.name, event.id) for event in events] == [
        ("connected", None),
        ("progress", "2"),
        ("progress", "3"),
        ("progress", "4"),
    ]


async def test_without_words_for_the_record_readers_see_the_break(make: Make) -> None:
    broadcasts = make(JOB, renders=False)

    async def break_off() -> None:
        with broadcasts.follow("j1", None):
            feeds.append(broadcasts.join("j1", None))
            raise UpstreamError("gone")

    feeds: list[Feed | None] = []
    with pytest.raises(UpstreamError):
        await break_off()
    assert feeds[0] is not None
    assert names(await rest(feeds[0])) == ["(broken off)"]
    assert broadcasts.join("j1", None) is None


async def test_an_end_that_the_stream_does_not_tell_is_told_for_it(make: Make) -> None:
    broadcasts = make(JOB)
    with broadcasts.follow("j1", None) as following:
        await tell(following, 1)
        feed = broadcasts.join("j1", None)
        assert feed is not None
        await broadcasts.noted(changed(2, State.CANCELLED))
        events = await rest(feed)
        await tell(following, 3)  # it does not know yet
    assert names(events) == ["progress", "cancelled", "stream_ended"]


async def test_a_stream_that_ends_early_keeps_its_readers(make: Make) -> None:
    broadcasts = make(JOB)
    with broadcasts.follow("j1", None) as following:
        await tell(following, 1)
        feed = broadcasts.join("j1", None)
        following.is_whole = True
    assert feed is not None
    await broadcasts.noted(changed(2, State.CANCELLED))
    assert names(await rest(feed)) == ["progress", "cancelled", "stream_ended"]


async def test_a_job_that_ended_before_it_was_told_is_left_to_the_upstream(make: Make) -> None:
    known = [JOB]
    broadcasts = make(JOB)
    broadcasts._active = lambda _: known[0] if known else None
    feed = broadcasts.join("j1", None)
    known.clear()
    assert feed is not None
    assert names(await rest(feed)) == ["(broken off)"]


async def test_readers_left_at_the_end_of_the_process_see_a_break(make: Make) -> None:
    broadcasts = make(JOB)
    feed = broadcasts.join("j1", None)
    broadcasts.close()
    assert feed is not None
    assert names(await rest(feed)) == ["(broken off)"]
    await asyncio.sleep(0.005)  # its timers are gone
