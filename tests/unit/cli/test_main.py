"""The command line: what each command says, and one clear sentence when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from gateway.cli import main
from gateway.core.credential import hash_key
from gateway.core.error import SettingsError
from gateway.settings.load import load_policies

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    path = tmp_path / "gateway.yaml"
    path.write_text(f"store: {{sqlite: {{path: {tmp_path}/gateway.db}}}}\n")
    return path


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None], list[Any]]:
    """Put a double in the place of the composition root; what it was called with."""

    def serve(raised: BaseException | None) -> list[Any]:
        calls: list[Any] = []

        def run(config: Path, port_file: Path | None) -> int:
            calls.append((config, port_file))
            if raised is not None:
                raise raised
            return 0

        app = types.ModuleType("gateway.app")
        app.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "gateway.app", app)
        return calls

    return serve


Serve = Callable[[BaseException | None], list[Any]]
Captured = pytest.CaptureFixture[str]


# --- serve ------------------------------------------------------------------------------------


def test_serve_runs_the_app_with_the_named_files(serve: Serve) -> None:
    calls = serve(None)

    assert main(["serve", "--config", "a.yaml", "--port-file", "p.json"]) == 0
    assert main(["serve"]) == 0
    assert calls == [(Path("a.yaml"), Path("p.json")), (Path("gateway.yaml"), None)]


def bind_error(number: int, text: str) -> OSError:
    return OSError(number, f"error while attempting to bind on address ('0.0.0.0', 8080): {text}")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            SettingsError(["a.yaml:1: x: is required", "a.yaml:2: y: must be text"]),
            "gateway: a.yaml:1: x: is required\ngateway: a.yaml:2: y: must be text\n",
        ),
        (
            bind_error(errno.EADDRINUSE, "address already in use"),
            "gateway: port 8080 on 0.0.0.0 is in use by another process; choose another port\n",
        ),
        (
            OSError(errno.EADDRINUSE, "Address already in use"),
            "gateway: a port of the gateway is in use by another process; choose another port\n",
        ),
        (
            bind_error(errno.EACCES, "permission denied"),
            "gateway: cannot listen on port 8080 of 0.0.0.0: Permission denied\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/run/secrets/x"),
            "gateway: /run/secrets/x: Permission denied\n",
        ),
    ],
)
def test_what_stops_the_gateway_is_said_in_a_sentence(
    serve: Serve, capsys: Captured, raised: Exception, said: str
) -> None:
    serve(raised)

    assert main(["serve"]) == 1
    assert capsys.readouterr() == ("", said)


def test_the_sentence_fits_what_a_real_listener_raises(serve: Serve, capsys: Captured) -> None:
    import asyncio  # noqa: PLC0415

    async def listen(port: int) -> None:
        await asyncio.start_server(lambda *_: None, "127.0.0.1", port)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            asyncio.run(listen(port))
    serve(caught.value)

    assert main(["serve"]) == 1
    assert f"gateway: port {port} on 127.0.0.1 is in use" in capsys.readouterr().err


def test_an_interrupt_is_no_error(serve: Serve, capsys: Captured) -> None:
    serve(KeyboardInterrupt())

    assert main(["serve"]) == 130
    assert capsys.readouterr().err == ""


# --- check ------------------------------------------------------------------------------------


def test_check_passes_the_shipped_files(capsys: Captured) -> None:
    assert main(["check", "--config", str(ROOT / "gateway.yaml")]) == 0
    assert "are good." in capsys.readouterr().out


def test_check_lists_every_problem_of_settings_and_policies(config: Path, capsys: Captured) -> None:
    config.write_text("debug: perhaps\nupstrem: {}\n")
    (config.parent / "policies" / "cache.yaml").write_text("tll: 1s\n")

    assert main(["check", "--config", str(config)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.replace(f"{config.parent}/", "") for line in err.splitlines()] == [
        "gateway: gateway.yaml:1: debug: must be true or false",
        "gateway: gateway.yaml:2: upstrem: unknown key; did you mean 'upstream'?",
        "gateway: policies/cache.yaml:1: tll: unknown key; did you mean 'ttl'?",
    ]


def test_check_without_policies_says_where_they_should_be(config: Path, capsys: Captured) -> None:
    (config.parent / "policies").rmdir()

    assert main(["check", "--config", str(config)]) == 1
    assert "policies: is not a directory" in capsys.readouterr().err


def test_an_unreadable_file_is_one_sentence(tmp_path: Path, capsys: Captured) -> None:
    assert main(["check", "--config", str(tmp_path / "none.yaml")]) == 1
    assert capsys.readouterr().err.endswith(
        "none.yaml: cannot be read: No such file or directory\n"
    )


def test_check_notes_that_no_key_is_there_yet(config: Path, capsys: Captured) -> None:
    assert main(["check", "--config", str(config)]) == 0
    assert "has no keys yet; see 'gateway keys create'" in capsys.readouterr().out


def test_check_connect_shows_what_was_dialled(config: Path, capsys: Captured) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config.write_text(config.read_text() + f"upstream: {{url: 'http://127.0.0.1:{port}'}}\n")

    assert main(["check", "--config", str(config), "--connect"]) == 1
    table = capsys.readouterr().out
    assert re.search(
        r"^upstream +FAILED +.*cannot be reached.*Connect call failed", table, re.MULTILINE
    )
    assert re.search(r"^convex +not configured ", table, re.MULTILINE)
    assert re.search(r"^store +healthy ", table, re.MULTILINE)


# --- keys -------------------------------------------------------------------------------------


def test_a_key_is_shown_once_with_the_entry_that_holds_its_hash(capsys: Captured) -> None:
    assert main(["keys", "create", "--owner", "acme", "--id", "ci", "--scopes", "jobs:read"]) == 0

    out = capsys.readouterr().out
    [key] = re.findall(r"gw_[0-9a-f]{64}", out)
    assert out.endswith(
        "Add under entries:\n\n"
        f"  - id: ci\n    owner: acme\n    hash: sha256:{hash_key(key)}\n    scopes: [jobs:read]\n"
    )


def test_no_two_keys_are_alike(capsys: Captured) -> None:
    for _ in range(2):
        main(["keys", "create", "--owner", "acme"])

    out = capsys.readouterr().out
    assert len(set(re.findall(r"gw_[0-9a-f]{64}", out))) == 2
    assert len(set(re.findall(r"- id: (key_[0-9a-f]+)", out))) == 2


def test_a_written_key_can_be_used_and_the_file_holds_no_key(
    tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "auth.yaml"
    path.write_text("# ours\nentries: []  # none\n")
    arguments = ["--expires", "2027-01-31T00:00:00Z", "--write", str(path)]

    assert main(["keys", "create", "--owner", "acme", *arguments]) == 0

    [key] = re.findall(r"gw_[0-9a-f]{64}", capsys.readouterr().out)
    [entry] = load_policies(tmp_path).auth.entries
    assert entry.hash == f"sha256:{hash_key(key)}"
    assert (entry.owner, entry.expires) == ("acme", "2027-01-31T00:00:00Z")
    assert key not in path.read_text()
    assert path.read_text().startswith("# ours\nentries:  # none\n  - id: key_")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--expires", "tomorrow"], "--expires: must be a time with its zone"),
        (["--scopes", "job:read"], "--scopes: unknown scope; did you mean 'jobs:read'?"),
    ],
)
def test_a_key_that_could_not_work_is_not_made(
    tmp_path: Path, capsys: Captured, arguments: list[str], said: str
) -> None:
    path = tmp_path / "auth.yaml"

    assert main(["keys", "create", "--owner", "a", *arguments, "--write", str(path)]) == 1
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert not path.exists()


def test_an_id_is_not_given_twice(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "auth.yaml"
    command = ["keys", "create", "--owner", "a", "--id", "ci", "--write", str(path)]

    assert main(command) == 0
    before = path.read_text()
    assert main(command) == 1
    assert "has a key with the id 'ci' already" in capsys.readouterr().err
    assert path.read_text() == before


def test_a_file_that_cannot_be_written_shows_no_key(capsys: Captured) -> None:
    assert main(["keys", "create", "--owner", "a", "--write", "/proc/none/auth.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gateway: /proc/none")


# --- the rest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gateway", "auth", "cache", "rate_limits", "security_headers"])
def test_schema_prints_json_schema(capsys: Captured, name: str) -> None:
    assert main(["schema", name]) == 0

    schema = json.loads(capsys.readouterr().out)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False


def test_demo_passes_its_options_and_its_exit_code_on(monkeypatch: pytest.MonkeyPatch) -> None:
    demo = types.ModuleType("gateway.demo.main")
    demo.run = lambda *, once, json: 40 + once + json  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gateway.demo.main", demo)

    assert main(["demo", "--once"]) == 41
    assert main(["demo", "--once", "--json"]) == 42


def test_wrong_usage_is_exit_code_2(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["sreve"])
    assert caught.value.code == 2


def test_version_is_the_packages(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"gateway {__version__}\n"


def run(*arguments: str, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_module_runs_as_a_command() -> None:
    done = run("-m", "gateway", "check", "--config", "/nowhere.yaml")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gateway: /nowhere.yaml: cannot be read: No such file or directory\n"


def test_help_loads_none_of_the_heavy_packages() -> None:
    heavy = {"aiohttp", "pydantic", "yaml", "jmespath", "prometheus_client", "rich", "asyncio"}
    code = (
        "import sys\nfrom gateway.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )

    assert run("-c", code).stdout.splitlines()[-1] == "[]"


def test_a_reader_that_left_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run("-m", "gateway", "schema", stdout=writer)
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (0, "")


def test_check_names_a_scope_that_no_key_has(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auth = config.parent / "policies" / "auth.yaml"
    auth.write_text("keys: {source: [file]}\nscopes:\n  webhooks: [webhooks]\nentries: []\n")

    assert main(["check", "--config", str(config)]) == 1
    assert f"{auth}:3: scopes.webhooks: no key has webhooks" in capsys.readouterr().err


def test_check_notes_a_route_that_the_settings_do_not_have(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = config.parent / "policies" / "rate_limits.yaml"
    limits.write_text("limits:\n  a: {limit: 1, window: 1s, routes: [job-cancel, webhooks]}\n")

    assert main(["check", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert f"note: {limits}:2: limits.a.routes[0]: gateway.yaml has no route job-cancel" in out
    assert "routes[1]" not in out


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("rate_limits", "limits: {a: {limit: 1, window: -5s}}", "is not a duration"),
        ("rate_limits", "limits: {a: {limit: 1, window: 1s, routes: [job-creat]}}", "did you mean"),
        (
            "rate_limits",
            "limits:\n  a: {limit: 1}\n  a: {limit: 2}",
            "twice",
        ),
        ("cache", "a: &a [x, x]\nb: [*a, *a]", "anchors and aliases"),
        ("cache", "# " + "x" * 10 * 1024**2, "is larger than"),
        ("validation", "routes: {job-create: {schema_file: no.json}}", "is not in"),
    ],
)
def test_check_tells_bad_input_precisely(
    config: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, said: str
) -> None:
    path = config.parent / "policies" / f"{file}.yaml"
    path.write_text(content)
    (config.parent / "policies" / "auth.yaml").write_text("mod: shadow")

    assert main(["check", "--config", str(config)]) == 1

    told = capsys.readouterr().err
    assert said in told
    assert str(path) in told
    assert "auth.yaml:1: mod: unknown key; did you mean 'mode'?" in told  # all of them, at once
