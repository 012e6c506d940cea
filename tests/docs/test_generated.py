"""What follows from the code says what it says, and leaves no setting or series unexplained."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.transition import TRANSITIONS
from gateway.settings import yaml
from gateway.telemetry.metric import Metrics
from tests.docs import generate
from tests.docs.command import commands
from tests.docs.markdown import ROOT, tables
from tests.docs.setting import file_name, files, settings

HEADER = "# yaml-language-server: $schema="
# Read through getattr, by the names that messages carry.
BY_NAME = "convex.functions."
DECLARATIONS = ("model.py", "policy.py", "policy_browser.py", "policy_validation.py")
UNUSED = "Not used yet"
# Without effect too, though an attribute of that name is read: a logger's, and a key's own.
ALSO_UNUSED: set[str] = set()


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        yield path, ast.parse(path.read_text())


def attributes_read(*, besides: tuple[str, ...]) -> set[str]:
    """The names of every attribute that the package reads, some modules left out."""
    return {
        node.attr
        for path, tree in modules()
        if not path.as_posix().endswith(besides)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.parametrize("path", generate.pages(), ids=lambda path: path.name)
def test_generated_file_is_up_to_date(path: Path) -> None:
    assert path.read_text() == generate.pages()[path], (
        "python -m tests.docs.generate writes it anew"
    )


def test_every_setting_has_a_meaning() -> None:
    meanings = generate.meanings_of(generate.SETTINGS.read_text())

    assert [each for each in settings() if not meanings[each.file, each.path]] == []


def test_page_says_which_settings_nothing_uses() -> None:
    read = attributes_read(besides=tuple(f"gateway/settings/{name}" for name in DECLARATIONS))
    meanings = generate.meanings_of(generate.SETTINGS.read_text())
    unread = {
        setting.path
        for setting in settings()
        if setting.path.rpartition(".")[2].removesuffix("[]") not in read
        and not setting.path.startswith(BY_NAME)
    }

    assert {path for (_, path), said in meanings.items() if UNUSED in said} == unread | ALSO_UNUSED


def test_every_command_and_option_has_a_meaning() -> None:
    found = commands()
    silent = [
        (command.name, option.written)
        for command in found
        for option in command.options
        if not option.meaning
    ]

    assert silent == []
    assert [command.name for command in found if not command.meaning] == []
    assert len({command.name for command in found}) == len(found) > 20


def test_every_series_and_every_problem_has_a_meaning() -> None:
    pages = (generate.METRICS, "what it says"), (generate.PROBLEMS, "when")
    rows = [(row, name) for page, name in pages for row in tables(page.read_text())[0].rows]

    assert [row for row, name in rows if len(row[name]) < 10] == []
    assert len(rows) > 60


def test_series_that_nothing_feeds_are_the_known_ones() -> None:
    read = attributes_read(besides=("telemetry/metric.py",))
    series = {name for name, found in vars(Metrics()).items() if hasattr(found, "_labelnames")}

    assert series - read == generate.UNFED


def test_diagram_shows_every_change_of_state() -> None:
    page = generate.JOBS.read_text()

    for known, seen in TRANSITIONS:
        assert known is seen or f"    {known or '[*]'} --> {seen}:" in page


def test_every_settings_file_has_a_schema() -> None:
    shipped = {path.stem for path in (ROOT / "policies").glob("*.yaml")}

    assert shipped | {"gateway"} == set(files())
    assert {path.stem for path in generate.SCHEMAS.iterdir()} == set(files())


@pytest.mark.parametrize("path", [*ROOT.glob("config/*.yaml"), *map(file_name, files())], ids=str)
def test_yaml_names_its_schema_for_editors(path: Path | str) -> None:
    file = ROOT / path
    first = file.read_text().partition("\n")[0]
    name = file.stem if file.parent.name == "policies" else "gateway"

    assert first.startswith(HEADER)
    assert (file.parent / first.removeprefix(HEADER)).resolve() == generate.SCHEMAS / f"{name}.json"
    yaml.load(file)  # raises when the file is no longer good YAML


def test_settings_page_has_each_setting_once() -> None:
    listed = [
        (table.heading.partition(":")[0], row["setting"])
        for table in tables(generate.SETTINGS.read_text())
        for row in table.rows
    ]

    assert listed == [(each.file, f"`{each.path}`") for each in settings()]
