"""The product as processes, for the documents' own commands; one set a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.receiver import Receiver
from tests.support.system import AnalysisApi, GatewayProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    """The shipped settings in front of the stand-in upstream."""
    async with (
        AnalysisApi() as api,
        GatewayProcess(tmp_path_factory.mktemp("gateway"), api.url) as process,
    ):
        yield process


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    """A webhook receiver."""
    async with Receiver() as server:
        yield server
