"""What `convex/` offers: its tables, and the functions that the gateway calls.

`contract.json` beside this file is this release's, written from `convex/` by `npm run contract`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from gateway.core.error import SettingsError
from gateway.migrate.validator import Validator

# The web app's own table, to which the gateway only adds: what else is in it is the web app's.
SHARED_TABLE = "videos"


@dataclass(frozen=True, slots=True)
class Table:
    """One table: what its documents look like, and its indexes with their fields in order."""

    document: Validator
    indexes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Function:
    """One function: `query` or `mutation`, what it takes and what it returns."""

    kind: str
    args: Validator
    returns: Validator


@dataclass(frozen=True, slots=True)
class Contract:
    """Tables by name, functions by path."""

    tables: Mapping[str, Table]
    functions: Mapping[str, Function]


def shipped() -> Contract:
    """The contract of this release's `convex/`."""
    return parse(orjson.loads((files(__package__) / "contract.json").read_bytes()))


def read(path: Path) -> Contract:
    """A contract from a file. Raises SettingsError when it holds none, OSError when it is away."""
    try:
        return parse(orjson.loads(path.read_bytes()))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        problem = f"{path}: is not what `npm run contract` writes ({type(error).__name__}: {error})"
        raise SettingsError([problem]) from error


def parse(document: Mapping[str, Any]) -> Contract:
    """A contract from its JSON. Raises KeyError or TypeError for what is none."""
    return Contract(
        {each["tableName"]: _table(each) for each in document["schema"]["tables"]},
        {each["path"]: _function(each) for each in document["functions"]},
    )


def parse_deployed(answer: Mapping[str, Any]) -> Contract:
    """A contract from the answer of `migrations/inspect:contract`, where validators are text."""
    functions = [
        {**each, "args": orjson.loads(each["args"]), "returns": orjson.loads(each["returns"])}
        for each in answer["functions"]
    ]
    return parse({"schema": orjson.loads(answer["schema"]), "functions": functions})


def to_be(table: str, deployed: Contract, wanted: Contract, *, exact: bool) -> Validator:
    """What a table's documents are to look like.

    Unless `exact`, what only the deployed shared table has is the web app's own, and stays.
    """
    new, old = wanted.tables[table].document, deployed.tables[table].document
    if exact or table != SHARED_TABLE or not new["type"] == old["type"] == "object":
        return new
    return {"type": "object", "value": {**old["value"], **new["value"]}}


def _table(exported: Mapping[str, Any]) -> Table:
    indexes = {each["indexDescriptor"]: tuple(each["fields"]) for each in exported["indexes"]}
    return Table(exported["documentType"], indexes)


def _function(exported: Mapping[str, Any]) -> Function:
    return Function(exported["kind"], exported["args"], exported["returns"])
