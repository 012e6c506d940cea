"""Where tracing is off it costs nothing: none of it is imported, and no policy is there for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.app.gateway import Gateway
from gateway.policy.build import in_order
from gateway.policy.trace import Trace
from gateway.settings.model import Settings
from gateway.settings.policy import PolicySet
from gateway.settings.telemetry import Tracing

IMPORTED = """
import sys
from gateway.app.gateway import Gateway
from gateway.settings.model import Settings
from gateway.settings.telemetry import Tracing
from gateway.settings.policy import PolicySet
Gateway(Settings(tracing=Tracing(endpoint={endpoint!r})), PolicySet())
print(any(name.startswith(("opentelemetry.proto", "google.protobuf")) for name in sys.modules))
"""


@pytest.mark.parametrize(
    ("endpoint", "imported"), [(None, "False"), ("http://127.0.0.1:4318", "True")]
)
def test_opentelemetry_is_imported_where_tracing_is_on_alone(
    endpoint: str | None, imported: str, tmp_path: Path
) -> None:
    code = IMPORTED.format(endpoint=endpoint)

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert found.stdout.strip() == imported


@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:4318"])
def test_the_policy_is_in_the_chain_where_tracing_is_on_alone(endpoint: str | None) -> None:
    gateway = Gateway(Settings(tracing=Tracing(endpoint=endpoint)), PolicySet())

    policies = in_order(PolicySet(), gateway.front.parts)

    is_traced = endpoint is not None
    assert [isinstance(policy, Trace) for policy in policies[:2]] == [False, is_traced]
    assert (gateway.traces is not None) is is_traced
