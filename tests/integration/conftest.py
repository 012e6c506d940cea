"""One upstream a module that remembers what came; each test finds it as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.echo import Echo


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Echo]:
    async with Echo() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def echo(upstream: Echo) -> AsyncIterator[Echo]:
    upstream.arrived.clear()
    yield upstream
    upstream.answer, upstream.reads = None, True
