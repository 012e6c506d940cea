"""The named queries: each is used, valid against the schema, and finds its rows by an index."""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import gateway.store.sqlite
from gateway.store.sqlite.migration import migrate
from gateway.store.sqlite.query import load_queries

FOLDER = Path(gateway.store.sqlite.__file__).parent
FILES = ("audit", "job", "outbox", "webhook")
QUERIES = {(file, name): sql for file in FILES for name, sql in load_queries(file).items()}
# Each must look at every job, or at everything that has not ended.
WHOLE = {("job", "void_leases"), ("outbox", "backlog")}
WHOLE |= {("outbox", "arrange_all"), ("outbox", "void_leases")}


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as opened:
        migrate(opened, Path("gateway.db"))
        yield opened


def plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    names = re.findall(r"(?<![:\w]):(\w+)", sql)
    rows = connection.execute(
        f"EXPLAIN QUERY PLAN {sql}", defaultdict(lambda: None, dict.fromkeys(names))
    )
    return [row[3] for row in rows]


@pytest.mark.parametrize("query", QUERIES, ids="-".join)
def test_query_fits_the_schema(connection: sqlite3.Connection, query: tuple[str, str]) -> None:
    plan(connection, QUERIES[query])


@pytest.mark.parametrize("query", sorted(QUERIES.keys() - WHOLE), ids="-".join)
def test_query_finds_its_rows_by_an_index(
    connection: sqlite3.Connection, query: tuple[str, str]
) -> None:
    steps = plan(connection, QUERIES[query])
    scans = [step for step in steps if re.match(r"SCAN (?!ready|json_each|CONSTANT)", step)]
    # A partial index holds only rows that are wanted.
    partial = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql LIKE '% WHERE %'"
    wanted = {name for (name,) in connection.execute(partial)}
    assert {step.split()[-1] for step in scans} <= wanted


def test_claim_looks_only_at_what_waits(connection: sqlite3.Connection) -> None:
    steps = plan(connection, QUERIES["outbox", "claim"])
    indexes = {found[1] for step in steps if (found := re.search(r"INDEX (\w+)", step))}
    assert {"queue_claimable", "message_claimable"} <= indexes
    assert "USE TEMP B-TREE FOR ORDER BY" not in steps[:2]


def test_every_query_is_used() -> None:
    source = "".join(path.read_text() for path in FOLDER.glob("*.py"))
    unused = [name for _, name in QUERIES if f'"{name}"' not in source]
    assert unused == []


def test_name_that_comes_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twice.sql").write_text("-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n")
    monkeypatch.setattr("gateway.store.sqlite.query.files", lambda _: tmp_path)
    with pytest.raises(ValueError, match="two queries named a"):
        load_queries("twice")
