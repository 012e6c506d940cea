"""docs/tracing.md: its settings are good, and it names every attribute and reason there is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from gateway.telemetry import attribute, export
from tests.docs.markdown import ROOT, blocks, codes, tables

PAGE = (ROOT / "docs" / "tracing.md").read_text()
COLLECTOR = ROOT / "config" / "opentelemetry" / "collector.yaml"
# What policies add to a request's fields, as far as a span takes it: text, not figures of limits.
OF_POLICIES = {
    f"gateway.{field}"
    for field in ("cache", "credential", "idempotency", "problem", "waited_seconds")
}


def test_the_collector_that_is_shipped_listens_where_the_settings_say() -> None:
    collector = yaml.safe_load(COLLECTOR.read_text())
    listens = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    [sample] = blocks(PAGE, "yaml")

    assert yaml.safe_load(sample.text)["tracing"]["endpoint"] == f"http://{listens}"
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
