"""`gateway keys` on the store, and on entries of a policy file that have successors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.core.credential import hash_key
from gateway.settings.load import load_policies
from gateway.store.sqlite.lock import FileLock

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "rate_limits.yaml").write_text(
        "limits: {per-key: {limit: 5, window: 1m, by: [key]}}\n"
        "tiers: {partner: {per-key: {limit: 50}}}\n"
    )
    path = tmp_path / "gateway.yaml"
    path.write_text(f"store: {{sqlite: {{path: {tmp_path}/gateway.db}}}}\n")
    return path


def keys(config: Path, *arguments: str) -> int:
    return main(["keys", *arguments, "--config", str(config)])


def listed(config: Path, capsys: Captured) -> list[dict[str, str]]:
    capsys.readouterr()
    assert keys(config, "list", "--json") == 0
    found: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return found


def test_a_key_of_the_store_is_made_rotated_and_revoked(config: Path, capsys: Captured) -> None:
    options = ["--tier", "partner", "--networks", "10.0.0.0/8", "--name", "CI"]
    assert keys(config, "create", "--store", "--owner", "acme", "--id", "ci", *options) == 0
    out = capsys.readouterr().out
    assert re.search(r"gw_[0-9a-f]{64}", out)
    assert "It is ci, of acme, for jobs:read, jobs:write, webhooks." in out

    assert keys(config, "rotate", "ci", "--id", "ci2", "--overlap", "1h") == 0
    assert re.search(r"^ci works until \d{4}-", capsys.readouterr().out, re.MULTILINE)
    assert keys(config, "revoke", "ci") == 0
    assert capsys.readouterr().out == "ci is revoked.\n"

    states = {key["id"]: (key["state"], key["lineage"]) for key in listed(config, capsys)}
    assert states == {"ci": ("revoked", "ci"), "ci2": ("active", "ci")}


def test_the_list_is_a_table_for_people(config: Path, capsys: Captured) -> None:
    keys(config, "create", "--store", "--owner", "acme", "--id", "one", "--scopes", "jobs:read")
    keys(config, "create", "--store", "--owner", "bob", "--id", "two")
    capsys.readouterr()

    assert keys(config, "list", "--owner", "acme") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == [
        *("id", "owner", "name", "state", "scopes", "tier", "expires", "last_used"),
    ]
    assert row.split() == ["one", "acme", "-", "active", "jobs:read", "-", "-", "-"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--store", "--owner", "a", "--tier", "gold"], "tier: is not a tier of the"),
        (["create", "--store", "--owner", "a", "--id", "a b"], "id: must be 1 to 64 letters"),
        (["rotate", "none"], "The store has no key none"),
        (["revoke", "none"], "The store has no key none"),
        (["rotate", "none", "--overlap", "soon"], "overlap: is no duration: 'soon'"),
        (["list", "--admin", "http://127.0.0.1:1"], "GATEWAY_ADMIN_KEY: set it to a key"),
    ],
)
def test_what_is_wrong_is_said(
    config: Path, capsys: Captured, arguments: list[str], said: str
) -> None:
    assert keys(config, *arguments) == 1
    out, err = capsys.readouterr()
    assert (out, said in err) == ("", True), err


def test_a_store_that_a_gateway_has_open_is_reached_through_it(
    config: Path, capsys: Captured
) -> None:
    lock = FileLock(config.parent / "gateway.db")
    lock.acquire()
    try:
        assert keys(config, "list") == 1
    finally:
        lock.release()

    err = capsys.readouterr().err
    assert "is in use by another gateway" in err
    assert "reached with --admin http://HOST:PORT and GATEWAY_ADMIN_KEY" in err


def test_a_gateway_that_does_not_answer_is_one_sentence(
    config: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN_KEY", "gw_x")

    assert keys(config, "list", "--admin", "http://127.0.0.1:1") == 1
    assert capsys.readouterr().err.startswith("gateway: http://127.0.0.1:1/keys: Cannot connect")


def test_an_entry_of_the_file_gets_a_successor_and_advice(config: Path, capsys: Captured) -> None:
    file = config.parent / "policies" / "auth.yaml"
    options = ["--tier", "partner", "--scopes", "jobs:read", "--networks", "10.0.0.0/8"]
    command = ["create", "--owner", "acme", "--id", "ci", *options, "--write", str(file)]
    assert keys(config, *command) == 0

    assert keys(config, "rotate", "ci", "--id", "ci2", "--write", str(file)) == 0

    out = capsys.readouterr().out
    first, second = load_policies(file.parent).auth.entries
    assert re.search(r"write at the entry ci:\n\n    expires: \d{4}-.*Z", out)
    assert second.hash == f"sha256:{hash_key(re.findall(r'gw_[0-9a-f]{64}', out)[-1])}"
    assert second.lineage == "ci"
    for name in ("owner", "scopes", "tier", "networks"):
        assert getattr(second, name) == getattr(first, name)


def test_a_successor_needs_a_predecessor(config: Path, capsys: Captured) -> None:
    file = config.parent / "policies" / "auth.yaml"

    assert keys(config, "rotate", "ci", "--write", str(file)) == 1
    assert "has no key with the id 'ci'" in capsys.readouterr().err
