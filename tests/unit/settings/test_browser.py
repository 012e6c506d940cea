"""What `policies/cors.yaml` and `policies/security_headers.yaml` may not say."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.settings.check_browser import check_cors, check_security_headers
from gateway.settings.policy_browser import CorsPolicy, SecurityHeaderPolicy


def cors(**policy: Any) -> list[str]:
    return [said for _, said in check_cors(CorsPolicy.model_validate(policy))]


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443", "app://x", "*"],
)
def test_an_origin_as_browsers_send_it_is_good(origin: str) -> None:
    assert cors(origins=[origin]) == []


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ("https://app.example.com/", "without a path"),
        ("app.example.com", "like https://app.example.com"),
        ("https://App.example.com", "as browsers send it"),
        ("https://*.example.com", "never by a pattern"),
        ("https://app.example.com:443", "leave it out too"),
        ("null", "names nobody"),
        ("https://user@app.example.com", "as browsers send it"),
    ],
)
def test_any_other_is_told(origin: str, said: str) -> None:
    [problem] = cors(origins=[origin])

    assert said in problem


@pytest.mark.parametrize(
    "policy",
    [
        {"origins": ["*"], "credentials": True},
        {"origins": ["*"], "routes": {"other": {"credentials": True}}},
        {"credentials": True, "routes": {"other": {"origins": ["*"]}}},
    ],
)
def test_any_origin_never_goes_with_credentials(policy: dict[str, Any]) -> None:
    [problem] = cors(**policy)

    assert "name origins" in problem


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"routes": {"job-statsu": {}}}, "did you mean 'job-status'?"),
        ({"methods": ["GETT"]}, "GET"),
        ({"headers": ["X Y"]}, "not a header's name"),
        ({"expose": ["*"]}, "one by one"),
    ],
)
def test_names_are_checked(policy: dict[str, Any], said: str) -> None:
    [problem] = cors(**policy)

    assert said in problem


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"path": "docs", "headers": {}}, "must begin with /"),
        ({"path": "/docs", "headers": {"X Y": "1"}}, "not a header's name"),
        ({"path": "/docs", "headers": {"X-Y": "a\nb"}}, "one line"),
    ],
)
def test_overrides_of_headers_are_checked(override: dict[str, Any], said: str) -> None:
    policy = SecurityHeaderPolicy.model_validate({"overrides": [override]})

    [(_, problem)] = check_security_headers(policy)

    assert said in problem
