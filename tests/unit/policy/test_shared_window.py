"""The store of windows while it is away: asked once a second, told of once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import structlog

from gateway.core.window import Hit, Quota, WindowState
from gateway.policy.shared_window import RETRY_SECONDS, SharedWindows
from gateway.store.memory.window import MemoryWindowStore
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock
from tests.support.policy import AbsentStore, sample

HITS = [Hit(Quota("burst", 5, 60.0), "ip:192.0.2.1")]


class Flaky(MemoryWindowStore):
    """Is away while told to be; counts who asked."""

    away = True
    asked = 0

    async def hit(self, hits: Sequence[Hit], now: float) -> Sequence[WindowState]:
        self.asked += 1
        return await (AbsentStore().hit(hits, now) if self.away else super().hit(hits, now))


@pytest.fixture
def store() -> Flaky:
    return Flaky()


@pytest.fixture
def windows(store: Flaky, metrics: Metrics, clock: FakeClock) -> SharedWindows:
    return SharedWindows(store, MemoryWindowStore(), metrics, clock)


async def test_a_store_that_is_away_is_asked_once_a_second(
    windows: SharedWindows, store: Flaky, metrics: Metrics, clock: FakeClock
) -> None:
    for _ in range(10):
        assert await windows.hit(HITS, clock()) is None
    assert (store.asked, sample(metrics, "store_errors_total", store="windows")) == (1, 1)

    clock.at += RETRY_SECONDS
    for _ in range(10):
        assert await windows.hit(HITS, clock()) is None
    assert store.asked == 2


async def test_a_store_that_comes_back_is_used_again(
    windows: SharedWindows, store: Flaky, metrics: Metrics, clock: FakeClock
) -> None:
    with structlog.testing.capture_logs() as lines:
        await windows.hit(HITS, clock())
        clock.at += RETRY_SECONDS
        await windows.hit(HITS, clock())
        assert sample(metrics, "windows_away") == 1
        store.away = False
        assert await windows.hit(HITS, clock()) is None
        clock.at += RETRY_SECONDS
        for _ in range(2):
            assert await windows.hit(HITS, clock()) is not None

    assert [line["event"] for line in lines] == ["windows_away", "windows_back"]
    assert sample(metrics, "windows_away") == 0


async def test_a_clock_set_back_does_not_keep_the_store_away(
    windows: SharedWindows, store: Flaky, clock: FakeClock
) -> None:
    await windows.hit(HITS, clock())
    store.away = False
    clock.at -= 3600

    assert await windows.hit(HITS, clock()) is not None
