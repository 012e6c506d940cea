"""The section `tracing`: what is wrong with it is said, and no header shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.core.error import SettingsError
from gateway.settings import check_tracing
from gateway.settings.load import load
from gateway.settings.telemetry import Tracing

ENVIRON = {"TOKEN": "hunter2", "BAD": "hunter2\nx: y"}
Refused = Callable[[str], list[str]]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    def refused(section: str) -> list[str]:
        file = tmp_path / "gateway.yaml"
        file.write_text(f"tracing: {section}\n")
        try:
            load(file, ENVIRON)
        except SettingsError as error:
            return [problem.replace(f"{file}:1: ", "") for problem in error.problems]
        return []

    return refused


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:4318",
        "https://otlp.example/otlp",
        "http://[::1]:4318/",
        "https://c.example",
    ],
)
def test_a_base_url_is_an_endpoint(refused: Refused, endpoint: str) -> None:
    assert refused(f"{{endpoint: '{endpoint}'}}") == []


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("127.0.0.1:4318", "must be a URL like http://127.0.0.1:4318"),
        ("grpc://c.example:4317", "must be a URL like http://127.0.0.1:4318"),
        ("http://c.example:99999", "must be a URL like http://127.0.0.1:4318"),
        (
            "https://u:p@c.example",
            "must not carry a user name or password; tracing.headers take a credential",
        ),
        ("https://c.example?key=x", "must not have a query or a fragment"),
        ("https://c.example/v1/traces", "must be the base URL: /v1/traces is added to it"),
    ],
)
def test_anything_else_is_none(refused: Refused, endpoint: str, said: str) -> None:
    assert refused(f"{{endpoint: '{endpoint}'}}") == [f"tracing.endpoint: {said}"]


def test_an_endpoint_without_the_extra_is_refused_with_the_way_to_get_it(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_tracing, "is_installed", lambda: False)

    [problem] = refused("{endpoint: 'http://c.example'}")

    assert problem == (
        "tracing.endpoint: needs the extra otel, which is not installed: "
        "pip install 'klipstream-gateway[otel]', or leave the endpoint out"
    )
    assert refused("{sample_ratio: 0.5}") == []


def test_the_extra_is_looked_for_where_packages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_tracing.is_installed()

    def no_parent(_name: str) -> None:
        raise ModuleNotFoundError("opentelemetry")

    monkeypatch.setattr(check_tracing, "find_spec", no_parent)
    assert not check_tracing.is_installed()


def test_headers_are_secrets_and_never_shown(refused: Refused, tmp_path: Path) -> None:
    assert refused("{headers: {X-Key: hunter2}}") == [
        "tracing.headers.X-Key: is a secret; write ${NAME} or file:/path instead"
    ]
    assert refused("{headers: {'X Key': '${TOKEN}', Host: '${TOKEN}', X-Bad: '${BAD}'}}") == [
        "tracing.headers.X Key: must be the name of a header",
        "tracing.headers.Host: is what the exporter itself says",
        "tracing.headers.X-Bad: must be printable ASCII, without spaces around it",
    ]
    (tmp_path / "gateway.yaml").write_text("tracing: {headers: {X-Key: '${TOKEN}'}}\n")
    settings = load(tmp_path / "gateway.yaml", ENVIRON)
    assert settings.tracing.headers["X-Key"].get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("section", "problems"),
    [
        ("{sample_ratio: 1.5}", ["tracing.sample_ratio: must be at most 1"]),
        (
            "{queue: 10, batch: 11}",
            ["tracing.batch: must not be more than tracing.queue"],
        ),
        (
            "{resource: {service.name: x}}",
            ["tracing.resource.service.name: is what tracing.service_name says"],
        ),
        ("{ca: /none.pem}", ["tracing.ca: names /none.pem, which is not a file"]),
        (
            "{ca: /etc/hostname, endpoint: 'http://c.example'}",
            ["tracing.ca: is for TLS: the endpoint begins with https://"],
        ),
    ],
)
def test_what_does_not_fit_together_is_said(
    refused: Refused, section: str, problems: list[str]
) -> None:
    assert refused(section) == problems


def test_without_an_endpoint_nothing_is_traced() -> None:
    assert Tracing().endpoint is None
