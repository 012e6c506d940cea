"""docs/convex.md: its commands are commands, and its tables name what there is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import pytest

from gateway import cli
from gateway.core.retry import ErrorKind
from gateway.delivery import convex_error
from gateway.delivery.convex_error import (
    ConvexConfigurationError,
    ConvexError,
    ConvexFunctionError,
    ConvexNotDeployed,
    ConvexUnavailable,
)
from gateway.delivery.convex_sink import CONFIGURATION_RETRY_SECONDS, DOUBTFUL_TRIES
from gateway.settings.delivery import Convex, ConvexFunctions
from tests.docs.markdown import ROOT, blocks, codes, tables

PAGE = (ROOT / "docs" / "convex.md").read_text()
COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks(PAGE, "console")
    for line in block.text.splitlines()
    if line.startswith("$ ")
]


def rows(column: str) -> Sequence[Mapping[str, str]]:
    """The rows of the table that begins with this column."""
    (table,) = [each for each in tables(PAGE) if next(iter(each.rows[0])) == column]
    return table.rows


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "gateway"
    assert callable(cli._parser().parse_args(arguments).run)


def test_every_migrate_command_is_shown() -> None:
    shown = {command.split()[2] for command in COMMANDS if command.startswith("gateway migrate")}
    assert shown == {"status", "check", "validate", "up", "down", "confirm"}


def test_every_call_is_in_the_table_with_the_path_it_has() -> None:
    named = {codes(row["setting"])[0]: row["the call"] for row in rows("setting")}
    assert set(named) == set(ConvexFunctions.model_fields)
    for name, path in ConvexFunctions():
        if path is not None:
            assert f"`{path}`" in named[name]


def kind_of(said: str) -> ConvexError:
    """What the gateway makes of an answer that says so."""
    if said.startswith("answered "):
        return convex_error.of_status(int(said.split()[1]), b"", None)
    if said == "not Convex's JSON":
        return convex_error.not_convex(200)
    if said.endswith("Server Error"):
        said = "[Request ID: 5f2c] Server Error"
    data = {"code": said, "message": "x"} if said.isupper() else None
    return convex_error.of_function(200, said, data)


def fate(error: ConvexError) -> str:
    """How the table says what becomes of the call."""
    if isinstance(error, ConvexNotDeployed):
        return f"dead after {DOUBTFUL_TRIES} tries, a minute between them"
    if isinstance(error, ConvexFunctionError):
        return "dead at once" if error.certain else f"dead after {DOUBTFUL_TRIES} tries"
    return "waits"


@pytest.mark.parametrize("row", rows("what is said"))
def test_every_error_ends_as_the_table_says(row: Mapping[str, str]) -> None:
    fates = {fate(kind_of(said)) for said in codes(row["what is said"])}
    assert len(fates) == 1
    assert row["what happens to the call"].startswith(fates.pop())


def test_figures_of_the_page_are_those_of_the_code() -> None:
    assert CONFIGURATION_RETRY_SECONDS == 60
    assert Convex().concurrency == 16
    assert "`convex.concurrency` (16)" in PAGE


def test_kinds_of_error_are_told_apart() -> None:
    wrong_key, away = kind_of("answered 401"), kind_of("answered 503")
    assert isinstance(wrong_key, ConvexConfigurationError)
    assert isinstance(away, ConvexUnavailable)
    assert (wrong_key.kind, away.kind) == (ErrorKind.CONFIGURATION, ErrorKind.HTTP_STATUS)
