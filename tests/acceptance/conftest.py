"""The product as its users have it: the stand-in upstream, the gateway, a receiver, each real.

Starting processes is what takes time, so a module shares one upstream and one gateway where its
stories allow; `launch` starts a gateway for one story alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.convex import ConvexServer, require_server
from tests.support.receiver import Receiver
from tests.support.system import AnalysisApi, GatewayProcess

Launch = Callable[..., Awaitable[GatewayProcess]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[AnalysisApi]:
    """One job API for a module's stories; a job takes 0.7 s."""
    async with AnalysisApi() as api:
        yield api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_gateway(
    upstream: AnalysisApi, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> AsyncIterator[GatewayProcess]:
    """One gateway for a module; a module's `SETTINGS` go over the test ones."""
    settings: dict[str, Any] = getattr(request.module, "SETTINGS", {})
    async with GatewayProcess(tmp_path_factory.mktemp("gw"), upstream.url, **settings) as process:
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(
    shared_gateway: GatewayProcess, upstream: AnalysisApi
) -> AsyncIterator[GatewayProcess]:
    """The shared gateway, left without webhooks and with an upstream that behaves."""
    yield shared_gateway
    await upstream.fault(None)
    await shared_gateway.remove_webhooks()


@pytest_asyncio.fixture(loop_scope="module")
async def launch(tmp_path: Path) -> AsyncIterator[Launch]:
    """Starts a gateway in front of an upstream's URL, its settings as keywords."""
    async with AsyncExitStack() as stack:

        async def start(upstream_url: str, **settings: Any) -> GatewayProcess:
            process = GatewayProcess(tmp_path, upstream_url, **settings)
            return await stack.enter_async_context(process)

        yield start


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    """A webhook receiver."""
    async with Receiver() as server:
        yield server


@pytest.fixture(scope="module")
def convex_process() -> Iterator[ConvexServer]:
    """A Convex deployment with the project's own functions, for a module."""
    require_server()
    with ConvexServer() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module")
async def convex(convex_process: ConvexServer) -> ConvexServer:
    """The deployment without rows or faults."""
    await convex_process.reset()
    return convex_process
