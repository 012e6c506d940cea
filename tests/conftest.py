"""Fixtures that any test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from tests.support.valkey import Valkey


@pytest.fixture(scope="session")
def valkey_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The run's one server. Ask for `valkey`, which is empty, unless its content is no matter."""
    with Valkey(tmp_path_factory.mktemp("valkey"), append_only=True) as server:
        yield server


@pytest.fixture
def valkey(valkey_process: Valkey) -> Valkey:
    """A running server without keys or scripts; a test that kills one starts its own."""
    client = valkey_process.client()
    try:
        client.flushall()
        client.script_flush()
    finally:
        client.close()
    return valkey_process


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """What one test configures, another must not meet: structlog's configuration is global."""
    yield
    structlog.reset_defaults()
