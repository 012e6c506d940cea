"""What would break if a deployment went from one contract to another, and what lags behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.migrate.contract import SHARED_TABLE, Contract, Function, Table
from gateway.migrate.validator import describe, narrowings


class Severity(StrEnum):
    """How bad a finding is; only a note lets `gateway migrate check` pass."""

    BREAKING = "breaking"  # an older web app, or rows that are there, would fail
    BEHIND = "behind"  # the deployment cannot do what this gateway asks of it
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference; `where` is a table or a function's path."""

    severity: Severity
    where: str
    text: str


def compare_tables(deployed: Contract, wanted: Contract, *, exact: bool) -> Iterator[Finding]:
    """What deploying `wanted` in place of `deployed` does to rows and to an older web app.

    Unless `exact`, what `wanted` does not know in the shared table, and whole tables, are the web
    app's own and stay: its `schema.ts` has them.
    """
    for name, table in deployed.tables.items():
        after = wanted.tables.get(name)
        if after is not None:
            own = exact or name != SHARED_TABLE
            yield from _table_findings(name, table, after, own=own)
        elif exact:
            yield Finding(Severity.BREAKING, name, "the table is gone")
        else:
            yield Finding(Severity.NOTE, name, "the web app's own table; keep it")
    for name in wanted.tables.keys() - deployed.tables.keys():
        yield Finding(Severity.NOTE, name, "the table is new")


def compare_calls(
    deployed: Contract, wanted: Contract, called: frozenset[str]
) -> Iterator[Finding]:
    """What the deployment would refuse of the calls in `called` that this gateway makes.

    Paths that the shipped contract does not know are the web app's own functions.
    """
    for path in sorted(called):
        ours, theirs = wanted.functions.get(path), deployed.functions.get(path)
        if ours is None:
            text = "the web app's own function; its arguments are not compared"
            yield Finding(Severity.NOTE, path, text)
        elif theirs is None:
            text = "is not deployed; deploy convex/ before this gateway"
            yield Finding(Severity.BEHIND, path, text)
        else:
            yield from _call_findings(path, ours, theirs)


def _table_findings(name: str, before: Table, after: Table, *, own: bool) -> Iterator[Finding]:
    old, new = before.document, after.document
    both_objects = old["type"] == new["type"] == "object"
    if both_objects and not own:
        kept = {field: each for field, each in old["value"].items() if field in new["value"]}
        for field in sorted(old["value"].keys() - kept.keys()):
            yield Finding(Severity.NOTE, name, f"{field} is the web app's own; keep it")
        old = {"type": "object", "value": kept}
    for text in narrowings(old, new):
        yield Finding(Severity.BREAKING, name, text)
    if both_objects:
        for text in _surprises(old["value"], new["value"]):
            yield Finding(Severity.NOTE, name, text)
    for text in _lost_indexes(before.indexes, after.indexes, own=own):
        yield Finding(Severity.BREAKING, name, text)


def _surprises(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What an older web app may meet, or miss, and does not know of."""
    for field, each in new.items():
        known = old.get(field)
        if known is None:
            if each["optional"]:
                yield f"{field} is new: an older web app leaves it out"
        elif any(narrowings(each["fieldType"], known["fieldType"])):
            if any(narrowings(known["fieldType"], each["fieldType"])):
                continue  # another type altogether, which is breaking
            yield f"{field} becomes {describe(each['fieldType'])}: an older web app may not know it"
        elif each["optional"] and not known["optional"]:
            yield f"{field} becomes optional: an older web app may miss it"


def _lost_indexes(
    before: Mapping[str, tuple[str, ...]], after: Mapping[str, tuple[str, ...]], *, own: bool
) -> Iterator[str]:
    for index, fields in before.items():
        now = after.get(index)
        if now is None and own:
            yield f"has no index {index}: an older web app's query by it fails"
        elif now is not None and now != fields:
            yield f"has the index {index} on {', '.join(now)}, not on {', '.join(fields)}"


def _call_findings(path: str, ours: Function, theirs: Function) -> Iterator[Finding]:
    if ours.kind != theirs.kind:
        text = f"is deployed as a {theirs.kind}, and this gateway calls it as a {ours.kind}"
        yield Finding(Severity.BEHIND, path, text)
        return
    # What this gateway may send must be what the deployed function takes.
    for text in narrowings(ours.args, theirs.args):
        yield Finding(Severity.BEHIND, path, f"{text}, as deployed; deploy convex/ first")
    # And once deployed, what an older gateway sends must still be taken.
    for text in narrowings(theirs.args, ours.args):
        yield Finding(Severity.BREAKING, path, f"{text}: an older gateway's calls fail")
