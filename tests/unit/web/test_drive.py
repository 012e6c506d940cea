"""Coroutines that are begun without a task and go on in one."""

from __future__ import annotations

import asyncio

import pytest

from gateway.web.drive import resume


async def test_work_goes_on_where_it_waited() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        first = await future
        await asyncio.sleep(0)
        return first + 1

    begun = work()
    waits_for = begun.send(None)
    task = asyncio.create_task(resume(begun, waits_for))
    future.set_result(1)

    assert await task == 2


async def test_what_was_waited_for_may_be_done_already() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await future

    begun = work()
    waits_for = begun.send(None)
    future.set_result(3)

    assert await asyncio.create_task(resume(begun, waits_for)) == 3


async def test_a_failure_is_the_tasks_own() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> int:
        return await future

    begun = work()
    task = asyncio.create_task(resume(begun, begun.send(None)))
    future.set_exception(LookupError("gone"))

    with pytest.raises(LookupError, match="gone"):
        await task


async def test_a_cancellation_reaches_the_work() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    begun = work()
    task = asyncio.create_task(resume(begun, begun.send(None)))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"]


async def test_work_may_outlive_a_cancellation_it_handles() -> None:
    async def work() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "cleaned up"

    begun = work()
    task = asyncio.create_task(resume(begun, begun.send(None)))
    await asyncio.sleep(0)
    task.cancel()

    assert await task == "cleaned up"


async def test_timeouts_work_once_the_work_has_waited() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0.001):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "in time"
        return "never"

    begun = work()
    assert await asyncio.create_task(resume(begun, begun.send(None))) == "in time"
