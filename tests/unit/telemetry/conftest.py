"""What tests of telemetry share."""

from __future__ import annotations

import pytest

from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()
