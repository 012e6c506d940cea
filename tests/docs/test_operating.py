"""docs/operating.md: what it lists is all there is, and what it names is there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import get_args

import pytest

from gateway.core.error import SettingsError
from gateway.settings.health import ComponentName
from gateway.settings.load import load
from tests.docs.markdown import ROOT, codes, prose, tables
from tests.docs.setting import settings

PAGE = (ROOT / "docs" / "operating.md").read_text()
SETTING = re.compile(
    r"(?:server|upstream|jobs|store|redis|webhooks|convex|policies|metrics|health|log)\.[a-z_.]+"
)


def rows(column: str) -> Sequence[Mapping[str, str]]:
    """The rows of the table that begins with this column."""
    (table,) = [each for each in tables(PAGE) if next(iter(each.rows[0])) == column]
    return table.rows


def test_every_environment_is_told() -> None:
    told = {codes(row["`GATEWAY_ENV`"])[0] for row in rows("`GATEWAY_ENV`")}

    assert told == {path.stem for path in (ROOT / "config").glob("*.yaml")}


def test_an_environment_without_a_file_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"staging\.yaml"):
        load(ROOT / "gateway.yaml", {"GATEWAY_ENV": "staging"})


def test_every_component_of_health_is_told() -> None:
    assert {codes(row["component"])[0] for row in rows("component")} == set(get_args(ComponentName))


def test_every_mode_is_in_the_list_of_the_shadow_rollout() -> None:
    told = {(codes(row["file"])[0], codes(row["`mode`"])[0]) for row in rows("file")}
    modes = {
        (each.file, each.path)
        for each in settings()
        if each.path.rpartition(".")[2] == "mode" and "`shadow`" in each.type
    }

    assert told == modes


def test_every_logger_it_names_is_one() -> None:
    told = {codes(row["`logger`"])[0] for row in rows("`logger`")}
    source = "".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py"))
    used = set(re.findall(r'get_logger\("(\w+)"\)|LOGGER, EVENT = "(\w+)"', source))

    assert told - {name for pair in used for name in pair} == set()


def test_every_setting_it_names_is_one() -> None:
    known = {each.path for each in settings()}
    sections = {path.rpartition(".")[0] for path in known}
    named = {code for code in codes(prose(PAGE)) if SETTING.fullmatch(code)}

    assert named - known - sections == set()
    assert len(named) > 25
