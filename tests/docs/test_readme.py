"""README.md, and every other page: what it tells a newcomer to type or to open is there."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from tests.docs.markdown import ROOT, anchors, blocks, codes, links, prose, tables
from tests.support.receiver import Receiver
from tests.support.system import KEY, Answer, GatewayProcess, clean_environment

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "convex" / "README.md"]
RECEIVER_URL = "https://example.com/hook"
GATEWAY_URL = "http://127.0.0.1:8080"


def commands(text: str) -> list[list[str]]:
    """The commands of the console blocks, and those that the sentences quote."""
    found = [command for block in blocks(text, "console") for command in _typed(block.text)]
    spans = [
        span for span in codes(prose(text)) if span.startswith(("make ", "gateway ", "python "))
    ]
    return [shlex.split(command.replace("\\\n", ""), comments=True) for command in (*found, *spans)]


def _typed(block: str) -> list[str]:
    """What stands after each prompt; its output, if there is any, is left out."""
    typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
    assert typed, f"a console block without a prompt: {block}"
    return typed


def programs() -> Iterator[str]:
    for command in commands(README):
        yield command[0]


def those_of(program: str) -> list[list[str]]:
    return [command for command in commands(README) if command[0] == program]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the commands read and write."""
    shutil.copy(ROOT / "gateway.yaml", tmp_path)
    for name in ("policies", "config"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def run(command: Sequence[str], folder: Path) -> str:
    """What a `gateway` command prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**clean_environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def send(gateway: GatewayProcess, command: Sequence[str], receiver: Receiver) -> Answer:
    """What the gateway answers to a `curl` command, its receiver replaced by one that is there."""
    _, *words = command
    headers: dict[str, str] = {}
    data: str | None = None
    url = ""
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value.replace("$KEY", KEY)
        elif word == "-d":
            data = words.pop(0).replace(RECEIVER_URL, receiver.url)
        else:
            assert word.startswith(GATEWAY_URL + "/"), f"curl knows no such option here: {word}"
            url = word.removeprefix(GATEWAY_URL)
    method = "GET" if data is None else "POST"
    body = None if data is None else data.encode()
    return await gateway.request(method, url, key=None, headers=headers, data=body)


def test_every_program_of_the_readme_is_tested_below() -> None:
    assert set(programs()) == {"make", "gateway", "curl", "python", "."}


@pytest.mark.parametrize("command", those_of("make"), ids=shlex.join)
def test_make_target_is_one(command: list[str]) -> None:
    target, *variables = command[1:]
    makefile = (ROOT / "Makefile").read_text()

    assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE)
    for variable in variables:
        name, _, value = variable.partition("=")
        assert f"$({name})" in makefile
        cli._parser().parse_args([target, *value.split()])


@pytest.mark.parametrize("command", those_of("gateway"), ids=shlex.join)
def test_gateway_command_is_one(command: list[str]) -> None:
    arguments = cli._parser().parse_args(command[1:])

    for path in (value for value in vars(arguments).values() if isinstance(value, Path)):
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("command", those_of("python"), ids=shlex.join)
def test_python_command_names_a_module(command: list[str]) -> None:
    assert command[1] == "-m"
    assert importlib.util.find_spec(f"{command[2]}.__main__") is not None


def test_environment_that_is_entered_is_the_one_that_make_fills() -> None:
    assert those_of(".") == [[".", ".venv/bin/activate"]]
    assert "VENV := .venv\n" in (ROOT / "Makefile").read_text()


def test_commands_make_a_key_and_find_the_files_good(checkout: Path) -> None:
    keys, check = those_of("gateway")[:2]

    shown = run(keys, checkout)
    checked = run(check, checkout)

    assert re.search(r"^  gw_\w+$", shown, re.MULTILINE)
    assert "has no keys yet" not in checked


@pytest.mark.asyncio(loop_scope="module")
async def test_requests_create_a_job_and_have_its_end_delivered(
    gateway: GatewayProcess, receiver: Receiver
) -> None:
    creation, registration = those_of("curl")

    registered = await send(gateway, registration, receiver)
    created = await send(gateway, creation, receiver)

    assert registered.status == 201, registered.body
    assert created.status == 200, created.body
    (delivered,) = await receiver.wait_for(1)
    assert delivered.event == "job.completed"
    assert delivered.envelope["data"]["job_id"] == created.document["job_id"]
    assert _receives(registered.document["secret"], delivered.headers, delivered.body) == 204


def _receives(secret: str, headers: Mapping[str, str], body: bytes) -> int:
    """What the receiver of docs/webhooks.md answers."""
    names: dict[str, Any] = {"SECRET": secret, "handle": json.dumps}
    sample = blocks((ROOT / "docs" / "webhooks.md").read_text(), "python")[0].text
    exec(compile(sample, "docs/webhooks.md", "exec"), names)  # noqa: S102 - the documented sample
    status: int = names["receive"](headers, body)
    return status


def test_every_place_of_the_tour_exists_and_every_package_is_in_it() -> None:
    (tour,) = [table for table in tables(README) if table.heading == "Where things are"]
    places = {codes(row["place"])[0] for row in tour.rows}
    packages = {f"gateway/{path.parent.name}/" for path in (ROOT / "gateway").glob("*/__init__.py")}

    assert [place for place in places if not (ROOT / place).exists()] == []
    assert packages - places == set()
    for row in tour.rows:
        (place, *_) = codes(row["place"])
        inside = [name for name in codes(row["what"]) if name.endswith(("/", ".py"))]
        assert [name for name in inside if not (ROOT / place / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not fragment or fragment in anchors(target.read_text()), f"{link}: no such heading"
