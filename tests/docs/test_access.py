"""docs/access.md: its commands, files and samples work, and its words are those of the code."""

from __future__ import annotations

import json
import re
import shlex
import threading
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.core import error
from gateway.settings.load import load_policies
from tests.docs.markdown import ROOT, blocks

PAGE = (ROOT / "docs" / "access.md").read_text()
(YAML,) = (block.text for block in blocks(PAGE, "yaml"))
(PYTHON,) = (block.text for block in blocks(PAGE, "python"))
COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks(PAGE, "console")
    for line in block.text.splitlines()
    if line.startswith("$ gateway ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command: str) -> None:
    assert cli._parser().parse_args(shlex.split(command)[1:]).run


def test_the_file_that_is_shown_is_good(tmp_path: Path) -> None:
    (tmp_path / "rate_limits.yaml").write_text(YAML)

    assert set(load_policies(tmp_path).rate_limits.limits) == {
        "job-create-per-ip",
        "default-per-key",
        "each-route-per-owner",
        "per-tenant",
    }


def test_every_problem_that_is_named_is_one() -> None:
    slugs = {
        value.slug
        for value in vars(error).values()
        if isinstance(value, type) and issubclass(value, error.GatewayError)
    }
    named = set(re.findall(r"`((?:outcome|idempotency)-[a-z-]+)`", PAGE))

    assert named == {"outcome-unknown", "idempotency-key-reused"}
    assert named <= slugs


class Server:
    """Answers as told, one after the other; None breaks the connection."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]] | None] = []
        self.keys: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.keys.append(self.headers["Idempotency-Key"])
                answer = outer.answers.pop(0)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers = answer
                body = json.dumps({"job_id": "j1"}).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jobs"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def sample() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(PYTHON, "docs/access.md", "exec"), names)  # noqa: S102 - the sample under test
    return names


def test_the_client_waits_as_told_and_tries_again_with_one_key(
    server: Server, waits: list[float]
) -> None:
    server.answers = [(429, {"Retry-After": "7"}), None, (503, {"Retry-After": "3"}), (200, {})]

    assert sample()["create_job"](server.url, "gw_x", {"url": "x"}) == {"job_id": "j1"}
    assert waits == [7, 2, 3]
    assert len(set(server.keys)) == 1
    assert re.fullmatch(r'"[0-9a-f-]{36}"', server.keys[0])


def test_the_client_does_not_insist_where_that_is_no_use(
    server: Server, waits: list[float]
) -> None:
    server.answers = [(422, {})]

    with pytest.raises(urllib.error.HTTPError) as caught:
        sample()["create_job"](server.url, "gw_x", {"url": "x"})
    caught.value.close()
    assert waits == []
