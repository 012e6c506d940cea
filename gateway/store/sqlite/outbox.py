"""The outbox in SQLite: what waits, who works on it, and what became of each attempt."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from gateway.core.outbox import Attempt, Backlog, Claim, Delivery, DeliveryStatus, Message
from gateway.core.retry import Dead, Delivered, RetryAt, Verdict
from gateway.store.codec import decode_cursor, encode_cursor
from gateway.store.outbox import DeliveryQuery
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.message import insert_messages, message_of_row
from gateway.store.sqlite.query import load_queries

_SQL = load_queries("outbox")
# Deleted in steps, so that deliveries go on meanwhile.
_PRUNE_STEP = 500


class SqliteOutbox:
    """`gateway.store.outbox.Outbox` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enqueue(self, messages: Sequence[Message]) -> None:
        """Add messages that belong to no job change; an id already there is left as it is."""
        await self._database.write(lambda connection: insert_messages(connection, messages))

    async def claim(
        self,
        sink: str,
        limit: int,
        now: float,
        lease_seconds: float,
        *,
        share: int = 4,
        busy: Collection[str] = (),
    ) -> Sequence[Claim[Message]]:
        """Claim due messages, oldest first, at most `share` of each destination not in `busy`."""
        values = {
            "sink": sink,
            "limit": limit,
            "now": now,
            "lease_until": now + lease_seconds,
            "busy": json.dumps(list(busy)),
            "share": share,
        }
        rows = await self._database.write(partial(_claim, values))
        ordered = sorted(rows, key=lambda row: (row["due_at"], row["sequence"]))
        return [Claim(message_of_row(row), row["fence"], row["lease_until"]) for row in ordered]

    async def settle(
        self, claim: Claim[Message], verdict: Verdict, attempt: Attempt, now: float
    ) -> bool:
        """Record an attempt and its verdict; False, and nothing written, when the lease was lost.

        A retry that a later message supersedes meanwhile is not made.
        """
        values = {"id": claim.item.id, "fence": claim.fence, "now": now, **_settled(verdict, now)}
        return await self._database.write(partial(_settle, values, attempt))

    async def next_due_at(self, sink: str) -> float | None:
        """When the earliest waiting message is due (a lease's end counts)."""
        rows = await self._database.fetch(_SQL["next_due_at"], {"sink": sink})
        due_at: float | None = rows[0]["due_at"]
        return due_at

    async def deliveries(self, query: DeliveryQuery) -> tuple[Sequence[Delivery], str | None]:
        """A page of the delivery log, newest first, its messages without their bodies.

        Raises InvalidRequest for a malformed cursor.
        """
        cursor = query.cursor
        cursor_at, cursor_id = (math.inf, "") if cursor is None else decode_cursor(cursor)
        values = {
            "destination": query.destination,
            "status": query.status,
            "kind": query.kind,
            "job_id": query.job_id,
            "cursor_at": cursor_at,
            "cursor_id": cursor_id,
            "limit": query.limit + 1,
        }
        found = await self._database.read(partial(_deliveries, "deliveries", values))
        page = found[: query.limit]
        if len(found) <= query.limit:
            return page, None
        return page, encode_cursor(page[-1].message.created_at, page[-1].message.id)

    async def get(self, message_id: str) -> Delivery | None:
        """One delivery with its attempts; here the message has its body."""
        found = await self._database.read(partial(_deliveries, "get", {"id": message_id}))
        return found[0] if found else None

    async def backlog(self) -> Sequence[Backlog]:
        """What waits, a line each sink."""
        rows = await self._database.fetch(_SQL["backlog"], {})
        return [Backlog(*row) for row in rows]

    async def cancel(self, destination: str, now: float) -> int:
        """Mark everything waiting for a destination cancelled; how many."""
        values = {"destination": destination, "now": now}
        return await self._database.execute(_SQL["cancel"], values)

    async def drop_payloads(self, before: float) -> int:
        """Forget the bodies of deliveries that finished before; how many."""
        values = {"before": before, "limit": _PRUNE_STEP}
        total = 0
        while dropped := await self._database.write(partial(_drop_payloads, values)):
            total += dropped
        return total

    async def prune(self, before: float) -> int:
        """Delete ended deliveries and their attempts that finished before; how many."""
        values = {"before": before, "limit": _PRUNE_STEP}
        total = 0
        while deleted := await self._database.execute(_SQL["prune"], values):
            total += deleted
        return total


def _drop_payloads(values: Mapping[str, object], connection: sqlite3.Connection) -> int:
    ids = [{"id": row["id"]} for row in connection.execute(_SQL["bodies_to_drop"], values)]
    connection.executemany(_SQL["drop_payload"], ids)
    connection.executemany(_SQL["mark_bodiless"], ids)
    return len(ids)


def _settled(verdict: Verdict, now: float) -> Mapping[str, object]:
    match verdict:
        case Delivered():
            return {"status": DeliveryStatus.SUCCEEDED, "due_at": None, "finished_at": now}
        case RetryAt(at):
            return {"status": DeliveryStatus.RETRYING, "due_at": at, "finished_at": None}
        case Dead(status):
            return {"status": status, "due_at": None, "finished_at": now}


def _claim(values: Mapping[str, object], connection: sqlite3.Connection) -> list[sqlite3.Row]:
    for pair in connection.execute(_SQL["drop_outdated"], values).fetchall():
        connection.execute(_SQL["arrange"], dict(pair))
    return connection.execute(_SQL["claim"], values).fetchall()


def _settle(values: Mapping[str, object], attempt: Attempt, connection: sqlite3.Connection) -> bool:
    # All rows are fetched: a statement left half read would hold up the commit.
    pairs = connection.execute(_SQL["settle"], values).fetchall()
    if not pairs:
        return False
    connection.execute(_SQL["supersede_settled"], values)
    connection.execute(_SQL["insert_attempt"], _attempt_columns(attempt))
    connection.execute(_SQL["arrange"], dict(pairs[0]))
    return True


def _attempt_columns(attempt: Attempt) -> Mapping[str, object]:
    return {
        "message_id": attempt.message_id,
        "number": attempt.number,
        "started_at": attempt.started_at,
        "duration_seconds": attempt.duration_seconds,
        "status_code": attempt.status_code,
        "error_kind": attempt.error_kind,
        "detail": attempt.detail,
        "response_excerpt": attempt.response_excerpt,
    }


def _deliveries(
    name: str, values: Mapping[str, object], connection: sqlite3.Connection
) -> list[Delivery]:
    rows = connection.execute(_SQL[name], values).fetchall()
    attempts: defaultdict[str, list[Attempt]] = defaultdict(list)
    wanted = {"message_ids": json.dumps([row["id"] for row in rows])}
    for row in connection.execute(_SQL["attempts"], wanted):
        attempts[row["message_id"]].append(Attempt(*row))
    return [
        Delivery(message_of_row(row), row["finished_at"], tuple(attempts[row["id"]]))
        for row in rows
    ]
