"""docs/tracing.md: its settings are good, and it names every attribute and reason there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from gateway.settings.load import load
from gateway.telemetry import attribute, export
from tests.docs.markdown import ROOT, codes, tables

PAGE = (ROOT / "docs" / "tracing.md").read_text()
SAMPLES = {
    body.partition("\n")[0].removeprefix("# "): body
    for body in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
}
# What policies add to a request's fields, as far as a span takes it: text, not figures of limits.
OF_POLICIES = {"gateway.cache", "gateway.idempotency", "gateway.problem"}


def test_the_settings_it_shows_are_good(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(SAMPLES["gateway.yaml"])

    section = load(tmp_path / "gateway.yaml", {"COLLECTOR_TOKEN": "Bearer x"}).tracing

    assert section.endpoint == "http://127.0.0.1:4318"
    assert section.headers["Authorization"].get_secret_value() == "Bearer x"


def test_the_collector_it_shows_listens_where_the_settings_say() -> None:
    collector = yaml.safe_load(SAMPLES["collector.yaml"])
    listens = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]

    assert f"endpoint: http://{listens}" in SAMPLES["gateway.yaml"]
    [pipeline] = collector["service"]["pipelines"].values()
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) == set(collector[part])


def test_it_names_every_attribute_and_no_other() -> None:
    [table] = [each for each in tables(PAGE) if "attribute" in each.rows[0]]
    told = {name for row in table.rows for name in codes(row["attribute"])}
    tree = ast.parse(Path(attribute.__file__).read_text())
    keys = {key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    made = {key.value for key in keys if isinstance(key, ast.Constant)}

    assert told == made | OF_POLICIES


@pytest.mark.parametrize("name", ["QUEUE_FULL", "REFUSED", "SHUTDOWN"])
def test_it_names_every_reason_of_a_drop(name: str) -> None:
    assert f"(`{getattr(export, name)}`)" in PAGE
