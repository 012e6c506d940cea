"""docs/policies.md: its samples are policies that the gateway takes, and what it names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.core.error import UnprocessableContent
from gateway.core.violation import Violations
from gateway.settings.load import load_policies
from gateway.settings.policy import PolicySet
from gateway.telemetry.metric import Metrics
from gateway.web.problem import problem
from tests.docs.markdown import ROOT, blocks, codes, prose, tables

PAGE = (ROOT / "docs" / "policies.md").read_text()
SAMPLES = [block.text for block in blocks(PAGE, "yaml")]
_FILE = re.compile(r"# policies/(\w+\.yaml)\n")


@pytest.mark.parametrize("sample", SAMPLES)
def test_each_sample_is_a_policy_file(sample: str, tmp_path: Path) -> None:
    found = _FILE.match(sample)
    assert found is not None
    (tmp_path / found[1]).write_text(sample)

    load_policies(tmp_path)


def test_every_file_is_listed() -> None:
    listed = {
        cell for table in tables(PAGE) for row in table.rows for cell in codes(row.get("file", ""))
    }

    assert listed == {f"{name}.yaml" for name in PolicySet.model_fields}


def test_every_series_it_names_is_there() -> None:
    known = {f"gateway_{name}" for name in vars(Metrics())}
    named = {code.partition("{")[0] for code in codes(prose(PAGE)) if code.startswith("gateway_")}

    assert named <= known
    assert len(named) > 5


def test_the_answer_it_shows_is_the_one_that_is_given() -> None:
    [shown] = [json.loads(block.text) for block in blocks(PAGE, "json")]
    violations = Violations()
    violations.add("is required", "url")
    with pytest.raises(UnprocessableContent) as caught:
        violations.raise_any()

    body = problem(caught.value).body
    assert isinstance(body, bytes)
    assert json.loads(body) == shown
