"""Memory before a shared store: who answers, and what an absence does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import structlog
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.error import StoreUnavailable
from gateway.core.freshness import StoredResponse, Terms
from gateway.store import response_tier
from gateway.store.memory.response import MemoryResponseStore
from gateway.store.response_tier import TieredResponseStore, purge_message
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock
from tests.support.policy import sample
from tests.support.store import NOW

RESPONSE = StoredResponse(200, CIMultiDictProxy(CIMultiDict()), b"x", Terms(NOW, NOW + 5))
NEWER = replace(RESPONSE, body=b"newer", terms=Terms(NOW, NOW + 60))


class Shared:
    """A shared store that is away when told to be, and calls back in the midst of a lookup."""

    def __init__(self) -> None:
        self.store_of = MemoryResponseStore(2**20, Metrics())
        self.away = False
        self.calls: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.gate = asyncio.Event()
        self.gate.set()

    def held(self, tag: str, key: str) -> None:
        """It is always waited for."""

    async def _called(self, name: str) -> None:
        self.calls.append(name)
        await self.gate.wait()
        if self.away:
            raise StoreUnavailable("away")

    def peek(self, tag: str, key: str) -> None:
        return None

    async def lookup(self, tag: str, key: str) -> Sequence[StoredResponse]:
        await self._called("lookup")
        found = self.store_of.peek(tag, key)
        self.meanwhile()
        return found

    async def store(self, tag: str, key: str, response: StoredResponse) -> None:
        await self._called("store")
        await self.store_of.store(tag, key, response)

    async def purge(self, tag: str) -> int:
        await self._called("purge")
        return self.store_of.drop(tag)

    async def expire(self, tag: str, now: float) -> int:
        await self._called("expire")
        return self.store_of.age(tag, now)


class Tiers:
    """Two replicas' tiers over one shared store, each of which hears of nothing by itself."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.clock = FakeClock(NOW)
        self.far = Shared()
        self.near = MemoryResponseStore(2**20, self.metrics)
        self.store = TieredResponseStore(self.near, self.far, "r1", self.metrics, self.clock)
        self.heard: list[tuple[str, bool]] = []
        self.store.listeners.append(lambda tag, terminal: self.heard.append((tag, terminal)))

    async def fill(self, response: StoredResponse = RESPONSE) -> None:
        """Store something, and wait until it is in both."""
        await self.store.store("t", "k", response)
        await self.store.close()

    async def found(self) -> list[bytes]:
        return [each.body for each in await self.store.lookup("t", "k")]

    async def come_back(self) -> None:
        """The shared store answers again, and enough time has passed to try it."""
        self.far.away = False
        self.store._away_until = asyncio.get_running_loop().time() - 1


@pytest.fixture
async def tiers() -> Tiers:
    return Tiers()


async def test_what_is_fresh_in_memory_is_answered_by_it_alone(tiers: Tiers) -> None:
    await tiers.fill()

    assert await tiers.found() == [b"x"]
    assert tiers.far.calls == ["store"]
    assert sample(tiers.metrics, "cache_lookups_total", tier="memory", result="hit") == 1


async def test_what_another_replica_stored_is_found_and_kept(tiers: Tiers) -> None:
    await tiers.far.store_of.store("t", "k", RESPONSE)

    assert await tiers.found() == await tiers.found() == [b"x"]
    assert tiers.far.calls == ["lookup"]
    assert sample(tiers.metrics, "cache_lookups_total", tier="redis", result="hit") == 1


async def test_what_is_stale_here_may_be_fresh_elsewhere(tiers: Tiers) -> None:
    await tiers.fill()
    tiers.clock.at += 6
    assert await tiers.found() == [b"x"]

    await tiers.far.store_of.store("t", "k", NEWER)
    assert await tiers.found() == [b"newer"]


async def test_a_miss_in_both_is_a_miss(tiers: Tiers) -> None:
    assert await tiers.found() == []
    assert sample(tiers.metrics, "cache_lookups_total", tier="redis", result="miss") == 1


@pytest.mark.parametrize("terminal", [True, False])
async def test_a_purge_reaches_both_and_is_counted_once(tiers: Tiers, *, terminal: bool) -> None:
    await tiers.fill()
    change = tiers.store.purge("t") if terminal else tiers.store.expire("t", NOW)

    assert await change == 1
    for store in (tiers.near, tiers.far.store_of):
        assert [each.terms.is_fresh(NOW) for each in store.peek("t", "k")] == (
            [] if terminal else [False]
        )


async def test_a_purge_comes_after_what_was_stored_before_it(tiers: Tiers) -> None:
    tiers.far.gate.clear()
    await tiers.store.store("t", "k", RESPONSE)
    purge = asyncio.create_task(tiers.store.purge("t"))
    await asyncio.sleep(0)  # it waits for the write now
    tiers.far.gate.set()
    await purge

    assert tiers.far.calls == ["store", "purge"]
    assert await tiers.found() == []


@pytest.mark.parametrize(("now", "left"), [(None, []), (NOW, [False])])
async def test_a_purge_elsewhere_is_heard(
    tiers: Tiers, now: float | None, left: list[bool]
) -> None:
    await tiers.fill()

    tiers.store.hear(purge_message("r2", "t", now))

    assert [each.terms.is_fresh(NOW) for each in tiers.near.peek("t", "k")] == left
    assert tiers.heard == [("t", now is None)]


async def test_ones_own_purge_is_no_news(tiers: Tiers) -> None:
    await tiers.fill()
    tiers.store.hear(purge_message("r1", "t", None))

    assert len(tiers.near.peek("t", "k")) == 1
    assert tiers.heard == []


@pytest.mark.parametrize("message", [b"", b"{}", b"[1]", b'"x"', b"\xff"])
async def test_a_message_that_cannot_be_read_is_refused(tiers: Tiers, message: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its own words are those of the parser
        tiers.store.hear(message)


async def test_after_missed_messages_memory_is_not_trusted(tiers: Tiers) -> None:
    await tiers.fill()
    await tiers.far.store_of.purge("t")
    tiers.store.missed()

    assert await tiers.found() == []


@pytest.mark.parametrize("how", ["heard", "missed", "own"])
async def test_what_is_purged_while_it_is_looked_up_is_not_used(tiers: Tiers, how: str) -> None:
    await tiers.far.store_of.store("t", "k", RESPONSE)
    purges: list[asyncio.Task[int]] = []
    meanwhile: dict[str, Callable[[], object]] = {
        "heard": lambda: tiers.store.hear(purge_message("r2", "t", None)),
        "missed": tiers.store.missed,
        "own": lambda: purges.append(asyncio.create_task(tiers.store.purge("t"))),
    }
    tiers.far.meanwhile = meanwhile[how]
    if how == "own":
        # The purge's first step runs before the lookup returns.
        tiers.far.meanwhile = lambda: tiers.store._outdate("t")

    assert await tiers.found() == []
    assert not tiers.near.peek("t", "k")
    assert not tiers.store._filling
    assert not tiers.store._outdated


# --- away -------------------------------------------------------------------------------------


async def test_without_the_shared_store_memory_answers(tiers: Tiers) -> None:
    tiers.far.away = True
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await tiers.fill()
            tiers.store._away_until = tiers.store._away_until and 0.0
            assert await tiers.found() == [b"x"]
            await tiers.store.purge("other")

    assert [line["event"] for line in logs] == ["cache_tier_away"]
    assert sample(tiers.metrics, "store_errors_total", store="responses") > 1


async def test_for_a_while_after_a_failure_it_is_left_alone(tiers: Tiers) -> None:
    tiers.far.away = True
    assert await tiers.found() == []
    for _ in range(3):
        assert await tiers.found() == []
        await tiers.fill()
        tiers.near.drop("t")

    assert tiers.far.calls == ["lookup"]


async def test_it_is_back_by_itself(tiers: Tiers) -> None:
    tiers.far.away = True
    await tiers.found()
    await tiers.come_back()
    with structlog.testing.capture_logs() as logs:
        await tiers.fill()

    assert [line["event"] for line in logs] == ["cache_tier_back"]
    assert tiers.far.store_of.peek("t", "k")


@pytest.mark.parametrize("terminal", [True, False])
async def test_a_purge_it_is_owed_comes_before_anything_is_taken_from_it(
    tiers: Tiers, *, terminal: bool
) -> None:
    await tiers.fill()
    tiers.far.away = True
    await (tiers.store.purge("t") if terminal else tiers.store.expire("t", NOW))
    await tiers.come_back()
    tiers.near.clear()

    found = await tiers.store.lookup("t", "k")

    assert [each.terms.is_fresh(NOW) for each in found] == ([] if terminal else [False])
    assert tiers.far.calls[-2:] == ["purge" if terminal else "expire", "lookup"]
    assert not tiers.store._owed


async def test_a_purge_owed_comes_before_what_is_stored_anew(tiers: Tiers) -> None:
    tiers.far.away = True
    await tiers.store.purge("t")
    await tiers.come_back()
    await tiers.fill()

    assert tiers.far.calls[-2:] == ["purge", "store"]
    assert tiers.far.store_of.peek("t", "k")


async def test_while_it_cannot_be_paid_nothing_is_taken(tiers: Tiers) -> None:
    await tiers.fill()
    tiers.far.away = True
    await tiers.store.purge("t")
    await tiers.come_back()
    tiers.far.away = True

    assert await tiers.found() == []
    assert list(tiers.store._owed) == ["t"]


async def test_a_purge_is_more_than_an_expiry(tiers: Tiers) -> None:
    tiers.far.away = True
    await tiers.store.purge("t")
    await tiers.store.expire("t", NOW)

    assert tiers.store._owed == {"t": None}


async def test_what_is_owed_is_bounded(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_tier, "_MAX_OWED", 2)
    tiers.far.away = True
    for tag in "abc":
        await tiers.store.purge(tag)

    assert list(tiers.store._owed) == ["b", "c"]


async def test_writes_under_way_are_bounded(tiers: Tiers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_tier, "_MAX_WRITES", 2)
    tiers.far.gate.clear()
    for key in "abc":
        await tiers.store.store("t", key, RESPONSE)
    tiers.far.gate.set()
    await tiers.store.close()

    assert tiers.far.calls == ["store", "store"]
    assert len(tiers.near.peek("t", "c")) == 1
