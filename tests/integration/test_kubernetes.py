"""The manifests: every overlay builds, is valid strictly, and keeps what the design promises."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings.base import parse_size
from gateway.settings.load import load, load_policies
from gateway.settings.model import Settings
from tests.docs.markdown import ROOT

KUBERNETES = ROOT / "config" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
PROPAGATION_SECONDS = 5  # until every node's proxy knows that a pod is not ready any more
APP_EXIT_SECONDS = 15  # what the app may need after its SIGTERM
CLOSING_SECONDS = 5  # what the gateway needs for its stores
_UNKNOWN = re.compile("Couldn.t find schema for kind (ServiceMonitor|PrometheusRule)")

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """A whole overlay, as it would be applied."""
    folder = KUBERNETES / "overlays" / str(request.param)
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def documents(overlay: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(overlay))


def of_kind(overlay: str, kind: str) -> list[dict[str, Any]]:
    return [document for document in documents(overlay) if document["kind"] == kind]


def sidecar(overlay: str) -> dict[str, Any]:
    (deployment,) = of_kind(overlay, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert isinstance(container, dict)
    return container


def environment(overlay: str) -> dict[str, str]:
    """The variables that are set to a value, secrets as a stand-in."""
    given = {
        each["name"]: each.get("value", "redis://stand-in:6379") for each in sidecar(overlay)["env"]
    }
    return {name: value for name, value in given.items() if name != "CONVEX_URL"}


def test_every_resource_is_valid_strictly(overlay: str, tmp_path: Path) -> None:
    path = tmp_path / "overlay.yaml"
    path.write_text(overlay)
    done = subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )

    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in said if "INFO" not in line and not _UNKNOWN.search(line)] == []


def test_the_gateway_is_a_native_sidecar_that_drains(overlay: str) -> None:
    container = sidecar(overlay)

    assert container["restartPolicy"] == "Always"
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["gateway", "drain"]
    probes = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert probes == {
        "startupProbe": "/health/ready",
        "readinessProbe": "/health/ready",
        "livenessProbe": "/health/live",
    }


def test_it_may_do_no_more_than_it_must(overlay: str) -> None:
    (deployment,) = of_kind(overlay, "Deployment")
    pod, container = deployment["spec"]["template"]["spec"], sidecar(overlay)

    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= container["resources"].keys()


def test_policies_are_a_directory_that_is_updated_in_place(overlay: str) -> None:
    mounts = {each["name"]: each for each in sidecar(overlay)["volumeMounts"]}

    assert mounts["policies"]["mountPath"] == "/etc/gateway/policies"
    assert not any("subPath" in mount for mount in mounts.values())
    names = [document["metadata"]["name"] for document in of_kind(overlay, "ConfigMap")]
    assert names == ["gateway-policies"]  # no hash: a change restarts nothing


def test_the_policies_are_the_shipped_ones(overlay: str, tmp_path: Path) -> None:
    (config,) = of_kind(overlay, "ConfigMap")
    for name, content in config["data"].items():
        (tmp_path / name).write_text(content)

    assert load_policies(tmp_path) == load_policies(ROOT / "policies")
    assert set(config["data"]) == {path.name for path in (ROOT / "policies").glob("*.yaml")}


def test_the_variables_are_settings(overlay: str) -> None:
    settings: Settings = load(ROOT / "gateway.yaml", environment(overlay))

    assert settings.upstream.url == "http://127.0.0.1:3001"


def test_health_tells_of_memory_before_the_kernel_does(overlay: str) -> None:
    limit = sidecar(overlay)["resources"]["limits"]["memory"]
    settings = load(ROOT / "gateway.yaml", environment(overlay))

    assert settings.health.max_memory < parse_size(f"{limit}B")


def test_only_the_gateway_is_reachable(overlay: str) -> None:
    (deployment,) = of_kind(overlay, "Deployment")
    (app,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "127.0.0.1" in app["args"]
    services = {each["metadata"]["name"]: each["spec"] for each in of_kind(overlay, "Service")}
    assert [port["targetPort"] for port in services["analysis-api"]["ports"]] == ["public"]

    (policy,) = of_kind(overlay, "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"]
    anywhere = [rule for rule in policy["spec"]["ingress"] if "from" not in rule]
    assert [port["port"] for rule in anywhere for port in rule["ports"]] == ["public"]


def test_a_pod_has_time_to_drain(overlay: str) -> None:
    (deployment,) = of_kind(overlay, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (app,) = pod["containers"]
    server = load(ROOT / "gateway.yaml", environment(overlay)).server

    waits = app["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert server.drain_delay >= PROPAGATION_SECONDS
    assert server.drain_timeout < waits  # the app answers until the last request has ended
    # The gateway gets its SIGTERM when the app is gone: what is left must be enough for it.
    left = pod["terminationGracePeriodSeconds"] - waits - APP_EXIT_SECONDS
    assert left >= server.drain_timeout + CLOSING_SECONDS


def test_the_embedded_store_outlives_the_pod_and_belongs_to_one() -> None:
    overlay = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / "overlays" / "embedded")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (deployment,) = of_kind(overlay, "Deployment")
    volumes = {each["name"]: each for each in deployment["spec"]["template"]["spec"]["volumes"]}

    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    assert "persistentVolumeClaim" in volumes["state"]
