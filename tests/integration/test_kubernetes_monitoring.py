"""What the Prometheus operator is given: good by its published schemas, and what the rest says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.docs.markdown import ROOT

COMPONENT = ROOT / "config" / "kubernetes" / "components" / "monitoring"
BASE = ROOT / "config" / "kubernetes" / "base"
SCHEMAS = ROOT / "tests" / "data" / "kubernetes"


def documents() -> list[dict[str, Any]]:
    """Every resource that the component adds."""
    names = yaml.safe_load((COMPONENT / "kustomization.yaml").read_text())["resources"]
    return [each for name in names for each in yaml.safe_load_all((COMPONENT / name).read_text())]


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [each for each in documents() if each["kind"] == kind]
    return found


def strict(schema: Any) -> Any:
    """As an API server reads a CRD, but a field it would silently prune is refused."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: strict(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        inner = schema["properties"]
        found["properties"] = {key: strict(value) for key, value in inner.items()}
        found.setdefault("additionalProperties", False)
    return found


def problems(resource: Mapping[str, Any]) -> list[str]:
    schema = strict(json.loads((SCHEMAS / f"{resource['kind']}.json").read_text()))
    judge = jsonschema_rs.validator_for(schema)
    return [
        f"{'/'.join(map(str, error.instance_path))}: {error.message}"
        for error in judge.iter_errors(resource)
    ]


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule"])
def test_it_is_good_by_the_operators_schema(kind: str) -> None:
    assert problems(of_kind(kind)) == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"port": 9901}, "spec/endpoints/0/port"),
        ({"port": "admin", "intervall": "15s"}, "spec/endpoints/0"),
        ({"port": "admin", "interval": "15 seconds"}, "spec/endpoints/0/interval"),
        ({"port": "admin", "scheme": "ftp"}, "spec/endpoints/0/scheme"),
    ],
)
def test_the_schema_refuses_what_the_operator_would(broken: dict[str, Any], said: str) -> None:
    monitor = of_kind("ServiceMonitor")
    monitor["spec"]["endpoints"] = [broken]

    assert [problem.partition(":")[0] for problem in problems(monitor)] == [said]


def test_every_kind_of_the_operators_has_its_schema_here() -> None:
    kinds = {each["kind"] for each in documents() if each["apiVersion"].startswith("monitoring.")}

    assert kinds == {path.stem for path in SCHEMAS.glob("*.json")}


def test_the_monitor_finds_the_admin_port_of_the_gateway() -> None:
    monitor, service = of_kind("ServiceMonitor")["spec"], of_kind("Service")
    wanted = monitor["selector"]["matchLabels"]
    (deployment,) = yaml.safe_load_all((BASE / "deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["initContainers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}

    assert wanted.items() <= service["metadata"]["labels"].items()
    assert [each["port"] for each in monitor["endpoints"]] == [
        each["name"] for each in service["spec"]["ports"]
    ]
    assert [ports[each["targetPort"]] for each in service["spec"]["ports"]] == [
        each["port"] for each in service["spec"]["ports"]
    ]


def test_the_operators_alerts_are_prometheus_own() -> None:
    alerts = yaml.safe_load((ROOT / "config" / "prometheus" / "alerts.yaml").read_text())

    assert of_kind("PrometheusRule")["spec"] == alerts
