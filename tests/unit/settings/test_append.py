"""An entry added to a list: everything else in the file stays as its author wrote it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from gateway.core.error import SettingsError
from gateway.settings import yaml
from gateway.settings.append import append_entry

ENTRY = {"id": "new", "owner": "a: b # c", "scopes": ["jobs:read", "webhooks"]}
ADDED = '  - id: new\n    owner: "a: b # c"\n    scopes: [jobs:read, webhooks]\n'
FIRST = "entries:  # keys\n  - id: a  # first\n    owner: o  # his\n"
FLOW = '{id: new, owner: "a: b # c", scopes: [jobs:read, webhooks]}'


def after(path: Path, text: str) -> str:
    path.write_text(text)
    append_entry(path, "entries", ENTRY)
    assert yaml.load(path).value["entries"][-1] == ENTRY
    return path.read_text()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.yaml"


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("# mine\nmode: shadow\n", f"# mine\nmode: shadow\nentries:\n{ADDED}"),
        ("mode: shadow", f"mode: shadow\nentries:\n{ADDED}"),
        ("", f"entries:\n{ADDED}"),
        ("# mine\nentries: []\nmode: shadow\n", f"# mine\nentries:\n{ADDED}mode: shadow\n"),
        ("entries: []  # none yet\n", f"entries:  # none yet\n{ADDED}"),
        ("entries:\nmode: shadow\n", f"entries:\n{ADDED}mode: shadow\n"),
        (
            f"{FIRST}\n# the rest\nmode: shadow\n",
            f"{FIRST}{ADDED}\n# the rest\nmode: shadow\n",
        ),
        ("entries:\n  - {id: a}  # x\n", f"entries:\n  - {{id: a}}  # x\n{ADDED}"),
        ("entries:\n  - id: a\n    scopes: [b]", f"entries:\n  - id: a\n    scopes: [b]\n{ADDED}"),
        (
            "entries:\n- id: a\n  scopes:\n  - b\nmode: shadow\n",
            f"entries:\n- id: a\n  scopes:\n  - b\n{textwrap.dedent(ADDED)}mode: shadow\n",
        ),
        ("entries:\n  - note: |\n      words\n", f"entries:\n  - note: |\n      words\n{ADDED}"),
        (
            "entries: [{id: a}]  # all\n",
            f"entries: [{{id: a}}, {FLOW}]  # all\n",
        ),
    ],
)
def test_only_the_entry_is_added(path: Path, before: str, expected: str) -> None:
    assert after(path, before) == expected


def test_a_file_that_is_not_there_is_made(path: Path) -> None:
    append_entry(path, "entries", ENTRY)

    assert path.read_text() == f"entries:\n{ADDED}"
    assert path.stat().st_mode & 0o007 == 0


def test_the_files_mode_and_a_link_to_it_stay(path: Path, tmp_path: Path) -> None:
    path.write_text("entries: []\n")
    path.chmod(0o604)
    link = tmp_path / "link.yaml"
    link.symlink_to(path)

    append_entry(link, "entries", ENTRY)

    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o604
    assert yaml.load(path).value["entries"] == [ENTRY]


def test_values_that_yaml_would_read_otherwise_are_quoted(path: Path) -> None:
    entry = {"id": "true", "owner": "123", "tier": "é\n\"'", "scopes": ["null", "a: b", "[x"]}

    append_entry(path, "entries", entry)

    assert yaml.load(path).value == {"entries": [entry]}


@pytest.mark.parametrize(
    "text",
    ["entries: 3\n", "entries: {a: b}\n", "entries: [{id: a}, # all\n  ]\n", "a: [\n", "x: &y 1\n"],
)
def test_a_file_that_cannot_be_added_to_is_left_as_it_was(path: Path, text: str) -> None:
    path.write_text(text)

    with pytest.raises(SettingsError):
        append_entry(path, "entries", ENTRY)

    assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]
