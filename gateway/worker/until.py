"""Work that a signal may cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T | None:
    """What `work` gives; None when `stop` is set before that, and the work is then cancelled."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.wait({working, stopping})
    return None
