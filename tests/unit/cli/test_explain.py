"""`gateway explain`: what would become of a request, without one being made."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.core.credential import format_key, hash_key

KEY = format_key(b"a-key-to-explain-things!!")
SETTINGS = """\
store: {{sqlite: {{path: {folder}/gateway.db}}}}
jobs:
  create: [{{path: /jobs}}]
  status: {{path: "/jobs/{{job_id}}/status"}}
  fields: {{id: id, state: state}}
"""
POLICIES = {
    "auth": {"entries": [{"id": "k1", "hash": hash_key(KEY), "owner": "alice"}]},
    "rate_limits": {
        "limits": {
            "per-ip": {"limit": 5, "window": "60s", "routes": ["job-create"]},
            "trial": {"limit": 1, "window": "1s", "by": ["key"], "mode": "shadow"},
        }
    },
    "cors": {"origins": ["https://app.example.com"]},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    for name, document in POLICIES.items():
        (tmp_path / "policies" / f"{name}.yaml").write_text(json.dumps(document))
    path = tmp_path / "gateway.yaml"
    path.write_text(SETTINGS.format(folder=tmp_path))
    return path


@pytest.fixture
def explained(config: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Any:
        assert main(["explain", *arguments, "--config", str(config), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def decisions(found: Any, policy: str) -> list[str]:
    return [step["decision"] for step in found["steps"] if step["policy"] == policy]


def test_the_route_and_every_policy_are_told_in_order(explained: Any) -> None:
    found = explained("GET", "/jobs/j1/status?full=1", "--key", KEY)

    assert (found["route"], found["parameters"]) == ("job-status", {"job_id": "j1"})
    assert found["forwarded"] == "GET /jobs/j1/status?full=1"
    assert found["answered_by"] == "upstream"
    assert list(dict.fromkeys(step["policy"] for step in found["steps"])) == [
        "security_headers",
        "cors",
        "rate_limit (address)",
        "auth",
        "rate_limit (key)",
        "validation",
        "idempotency",
        "admission",
        "long_poll",
        "response_cache",
    ]
    assert decisions(found, "auth") == ["admitted as alice with key k1 by the scope jobs:read"]
    assert "shadow: never refuses" in decisions(found, "rate_limit (key)")[0]
    assert found["refused_by"] is None


def test_what_comes_after_a_refusal_is_not_met(explained: Any) -> None:
    found = explained("POST", "/jobs", "--ip", "2001:db8::1")

    assert found["refused_by"] == found["steps"][-1]["policy"] == "auth"
    assert decisions(found, "auth") == ["401 unauthorized, key missing"]
    assert decisions(found, "rate_limit (address)") == ["per-ip: 5 in 60 s for ip:2001:db8::/64"]


@pytest.mark.parametrize(
    ("arguments", "policy", "said"),
    [
        (("POST", "/jobs", "--data", '{"a": "<b>"}'), "validation", "422 validation-failed"),
        (("POST", "/jobs", "--data", '{"a": 1}'), "validation", "the body is good"),
        (
            ("GET", "/x", "--header", "Origin: https://app.example.com"),
            "cors",
            "may read the answer",
        ),
        (
            ("GET", "/x", "--header", "Origin: null", "--header", "Upgrade: websocket"),
            "cors",
            "403 foreign-origin",
        ),
        (("GET", "/x/%2e%2e/%2e%2e/y"), "target", "400 invalid-request"),
        (("GET", "/metrics"), "target", "404 not-found"),
    ],
)
def test_each_policy_says_why(
    explained: Any, arguments: tuple[str, ...], policy: str, said: str
) -> None:
    headers = ("--header", "Content-Type: application/json", "--key", KEY)

    [decision, *_] = decisions(explained(*arguments, *headers), policy)

    assert said in decision


def test_a_preflight_ends_at_the_policy_that_answers_it(explained: Any) -> None:
    headers = ("Origin: https://app.example.com", "Access-Control-Request-Method: GET")

    found = explained("OPTIONS", "/x", "--header", headers[0], "--header", headers[1])

    assert decisions(found, "cors") == ["204 preflight"]
    assert (found["steps"][-1]["policy"], found["refused_by"]) == ("cors", None)


def test_nothing_is_made_by_asking(explained: Any, config: Path) -> None:
    found = explained("GET", "/x")

    assert not (config.parent / "gateway.db").exists()
    assert any("no store yet" in note for note in found["notes"])


def test_the_key_may_come_from_stdin(explained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{KEY}\n"))

    assert "alice" in decisions(explained("GET", "/x", "--key", "-"), "auth")[0]


def test_people_read_it_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "GET", "/jobs/j1/status", "--config", str(config)]) == 0

    out = capsys.readouterr().out
    assert out.startswith("route      job-status (/jobs/{job_id}/status)\n           job_id = j1\n")
    assert "\nx auth " in out
    assert "\nrefused by auth\n" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("GET", "/x", "--header", "no colon"), "written 'Name: value'"),
        (("TRACE", "/x"), "405 method-not-allowed"),
        (("GET", "/a b"), "400 invalid-request"),
        (("GET", "/x", "--header", "A: b\r\nC: d"), "must be one line"),
        (("POST", "/x", "--data", "@/none"), "/none: No such file"),
    ],
)
def test_a_question_that_is_none_is_told(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert main(["explain", *arguments, "--config", str(config)]) == 1
    assert said in capsys.readouterr().err
