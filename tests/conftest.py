"""Fixtures that any test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import structlog

from tests.support.valkey import Valkey, ValkeyCluster

# How long an example takes says something of the machine, not of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


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


@pytest.fixture(scope="session")
def valkey_cluster_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    """The run's one cluster. Ask for `valkey_cluster`, which is empty."""
    with ValkeyCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def valkey_cluster(valkey_cluster_process: ValkeyCluster) -> ValkeyCluster:
    """Three running nodes without keys or scripts; a test that kills one starts its own."""
    valkey_cluster_process.clear()
    return valkey_cluster_process


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """What one test configures, another must not meet: structlog's configuration is global."""
    yield
    structlog.reset_defaults()
