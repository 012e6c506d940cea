"""The alerts, the dashboard and the runbooks speak of series that exist, and of one another."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from gateway.core.error import UpstreamError
from gateway.telemetry.merge import Rule
from gateway.telemetry.metric import Metrics
from gateway.telemetry.worker_metric import WorkerMetrics
from tests.docs.markdown import ROOT, anchors, codes, tables

PROMETHEUS = ROOT / "config" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
_ADDING = re.compile(r"\b(?:sum|avg|count)(?:\s+(?:by|without)\s*\([^)]*\))?\s*\(")
_SERIES = re.compile(r"\b(?:gateway|process)_[a-z_]+")

promtool = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(promtool is None, reason="promtool is not installed")


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def known(metrics: Iterator[Metric]) -> set[str]:
    names: set[str] = set()
    for metric in metrics:
        names |= {metric.name, *(sample.name for sample in metric.samples)}
        if metric.type == "counter":
            names.add(f"{metric.name}_total")
        if metric.type == "histogram":
            names |= {metric.name + suffix for suffix in ("_bucket", "_count", "_sum")}
    return names


SERIES = known(chain(Metrics().registry.collect(), WorkerMetrics().registry.collect()))


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((ROOT / "config" / "grafana" / "dashboard.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Every expression of the alerts and the dashboard."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [rule["expr"] for rule in rules()] + shown


def summed(expression: str) -> Iterator[str]:
    """The text within each `sum(…)`, `avg(…)` and `count(…)` of an expression."""
    for start in _ADDING.finditer(expression):
        depth = 1
        for end in range(start.end(), len(expression)):
            depth += {"(": 1, ")": -1}.get(expression[end], 0)
            if depth == 0:
                yield expression[start.end() : end]
                break


@pytest.mark.parametrize("query", queries())
def test_what_every_replica_shows_alike_is_not_added_up(query: str) -> None:
    alike = {name for name, rule in Metrics().gauge_rules.items() if rule is not Rule.SUM}
    added = {name for inside in summed(query) for name in _SERIES.findall(inside)}

    assert added & alike == set()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_has_its_section_in_the_runbooks(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")

    assert (ROOT / page, anchor) == (RUNBOOKS, rule["alert"].lower())
    assert anchor in anchors(RUNBOOKS.read_text())


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_watches_series_that_are_exposed(rule: dict[str, Any]) -> None:
    assert set(_SERIES.findall(rule["expr"])) - SERIES == set()


def test_every_section_of_the_runbooks_is_an_alerts() -> None:
    sections = anchors(RUNBOOKS.read_text()) - {"runbooks"}

    assert sections == {rule["alert"].lower() for rule in rules()}


def test_every_alert_is_seen_to_fire_and_to_be_silent() -> None:
    document = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())
    fires: set[str] = set()
    silent: set[str] = set()
    for case in document["tests"]:
        for check in case["alert_rule_test"]:
            (fires if check["exp_alerts"] else silent).add(check["alertname"])

    names = {rule["alert"] for rule in rules()}
    assert (fires, silent) == (names, names)


@needs_promtool
@pytest.mark.parametrize(
    "command", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")]
)
def test_prometheus_takes_the_alerts_and_their_tests_pass(command: tuple[str, ...]) -> None:
    assert promtool is not None
    done = subprocess.run(
        [promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_exposition_is_clean() -> None:
    assert promtool is not None
    _, exposition = Metrics().render()
    done = subprocess.run(
        [promtool, "check", "metrics"], input=exposition, capture_output=True, check=False
    )

    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_the_dashboard_shows_series_that_are_exposed_each_with_what_it_means() -> None:
    dashboard = json.loads((ROOT / "config" / "grafana" / "dashboard.json").read_text())

    assert set(_SERIES.findall(" ".join(queries()))) - SERIES == set()
    assert [panel["title"] for panel in panels() if not panel["description"]] == []
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_failure_of_the_upstream_is_told_to_operators() -> None:
    page = (ROOT / "docs" / "upstream.md").read_text()
    (table,) = tables(page)
    told = {
        (codes(row["problem type ends in"])[0], int(row["status"]), codes(row["`reason`"])[0])
        for row in table.rows
    }

    kinds = UpstreamError.__subclasses__()
    assert told == {(kind.slug, kind.status, kind.reason) for kind in kinds}
