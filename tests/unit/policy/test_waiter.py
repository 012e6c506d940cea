"""Who waits for a job, and who is told what."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from gateway.core.message import Response
from gateway.policy import waiter as waiter_module
from gateway.policy.waiter import Waiter, Waiters
from gateway.telemetry.metric import Metrics
from tests.support.policy import answer, sample

FIRST, SECOND = answer(b"first"), answer(b"second")


@pytest.fixture
def waiters(metrics: Metrics) -> Waiters:
    made = Waiters(metrics)
    made.max_waiters, made.max_per_key = 1000, 1000
    return made


def joined(waiters: Waiters, stack: ExitStack, job_id: str = "j1", whose: str = "k1") -> Waiter:
    waiter = stack.enter_context(waiters.joined(job_id, whose))
    assert waiter is not None
    return waiter


async def test_all_who_wait_for_a_job_are_given_its_news_and_nobody_else(waiters: Waiters) -> None:
    with ExitStack() as stack:
        ours = [joined(waiters, stack) for _ in range(3)]
        other = joined(waiters, stack, "j2")
        tasks = [asyncio.create_task(each.wait(60)) for each in ours]
        await asyncio.sleep(0)

        waiters.wake("j1", FIRST)

        assert await asyncio.gather(*tasks) == [True] * 3
        assert [each.answer for each in ours] == [FIRST] * 3
        assert (other.answer, other.is_woken) == (None, False)


async def test_nothing_new_is_no_news(waiters: Waiters) -> None:
    with waiters.joined("j1", "k1") as waiter:
        assert waiter is not None
        assert await waiter.wait(0.001) is False
        waiters.wake("j1", None)
        assert await waiter.wait(60) is True
        assert await waiter.wait(0.001) is False


async def test_news_between_two_waits_is_not_missed(waiters: Waiters) -> None:
    with waiters.joined("j1", "k1") as waiter:
        assert waiter is not None
        waiters.wake("j1", FIRST)

        assert await waiter.wait(0) is True
        assert waiter.answer is FIRST


async def test_older_news_that_comes_late_is_not_told(
    waiters: Waiters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiter_module, "_AT_ONCE", 1)
    with ExitStack() as stack:
        first, second = joined(waiters, stack), joined(waiters, stack)
        waiters.wake("j1", FIRST)  # the second one is told in the loop's next turn
        second.wake(SECOND, 2)
        await asyncio.sleep(0)

        assert (first.answer, second.answer) == (FIRST, SECOND)


async def test_many_are_told_some_in_each_turn_of_the_loop(waiters: Waiters) -> None:
    with ExitStack() as stack:
        everyone = [joined(waiters, stack) for _ in range(300)]
        waiters.wake("j1", FIRST)
        told = []
        while sum(each.is_woken for each in everyone) < 300:
            told.append(sum(each.is_woken for each in everyone))
            await asyncio.sleep(0)

        assert told == [128, 256]


async def test_bounds_hold_and_a_place_is_free_again_when_its_waiter_leaves(
    waiters: Waiters, metrics: Metrics
) -> None:
    waiters.max_waiters, waiters.max_per_key = 3, 2
    with ExitStack() as stack:
        first = waiters.joined("j1", "k1")
        assert first.__enter__() is not None
        joined(waiters, stack)
        with waiters.joined("j1", "k1") as third:
            assert third is None
        joined(waiters, stack, whose="k2")
        with waiters.joined("j1", "k2") as fourth:
            assert fourth is None
        assert sample(metrics, "waiting_requests") == 3
        first.__exit__(None, None, None)
        joined(waiters, stack)
    assert sample(metrics, "waiting_requests") == 0
    assert not waiters.is_awaited("j1")
    assert (waiters._by_job, waiters._by_key) == ({}, {})


async def test_at_the_end_all_go_on_and_nobody_joins(waiters: Waiters) -> None:
    with ExitStack() as stack:
        tasks = [
            asyncio.create_task(joined(waiters, stack, job_id).wait(60)) for job_id in ("j1", "j2")
        ]
        await asyncio.sleep(0)

        waiters.end()

        assert await asyncio.gather(*tasks) == [True, True]
        with waiters.joined("j3", "k1") as late:
            assert late is None


async def test_a_waiter_has_no_task_and_leaves_no_timer(waiters: Waiters) -> None:
    before = asyncio.all_tasks()
    with waiters.joined("j1", "k1") as waiter:
        assert waiter is not None
        waiting = waiter.wait(3600)
        waiting.send(None)  # as the fast lane does: it waits now, in no task at all

        assert asyncio.all_tasks() == before
        future = waiter._future
        assert future is not None
        waiters.wake("j1", Response(200))
        with pytest.raises(StopIteration) as ended:
            waiting.send(None)
        assert ended.value.value is True
        assert waiter._future is None
