"""The audit log in SQLite. Triggers add the ends of deliveries, and refuse to change any line."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from functools import partial

from gateway.core.audit import AuditEntry
from gateway.store.audit import AuditQuery
from gateway.store.codec import decode_cursor, encode_cursor, malformed_cursor
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.query import load_queries

_SQL = load_queries("audit")
_PRUNE_STEP = 500


class SqliteAuditLog:
    """`gateway.store.audit.AuditLog` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Add lines that belong to no change of a webhook."""
        await self._database.write(partial(append_entries, entries))

    async def list(self, query: AuditQuery) -> tuple[Sequence[AuditEntry], str | None]:
        """A page of lines, newest first, and the next cursor.

        Raises InvalidRequest for a malformed cursor.
        """
        cursor_at, cursor_number = _position(query.cursor)
        values = {
            "webhook_id": query.webhook_id,
            "action": query.action,
            "since": -math.inf if query.since is None else query.since,
            "until": math.inf if query.until is None else query.until,
            "cursor_at": cursor_at,
            "cursor_number": cursor_number,
            "limit": query.limit + 1,
        }
        name = "page" if query.webhook_id is None else "page_of_webhook"
        rows = await self._database.fetch(_SQL[name], values)
        page = rows[: query.limit]
        cursor = None
        if len(rows) > query.limit:
            cursor = encode_cursor(page[-1]["at"], str(page[-1]["number"]))
        return [_entry(row) for row in page], cursor

    async def prune(self, before: float) -> int:
        """Delete lines from before; how many."""
        values = {"before": before, "limit": _PRUNE_STEP}
        total = 0
        while deleted := await self._database.execute(_SQL["prune"], values):
            total += deleted
        return total


def append_entries(entries: Sequence[AuditEntry], connection: sqlite3.Connection) -> None:
    """Add lines within the transaction of what they tell of."""
    connection.executemany(
        _SQL["append"],
        [
            {
                "at": entry.at,
                "action": entry.action,
                "webhook_id": entry.webhook_id,
                "actor": entry.actor,
                "details": json.dumps(entry.details),
            }
            for entry in entries
        ],
    )


def _position(cursor: str | None) -> tuple[float, int]:
    if cursor is None:
        return math.inf, 0
    at, number = decode_cursor(cursor)
    if not (number.isascii() and number.isdigit() and len(number) <= 18):
        raise malformed_cursor()
    return at, int(number)


def _entry(row: sqlite3.Row) -> AuditEntry:
    return AuditEntry(
        row["at"], row["action"], row["webhook_id"], row["actor"], json.loads(row["details"])
    )
