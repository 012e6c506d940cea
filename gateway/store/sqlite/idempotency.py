"""Idempotency keys in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import orjson

from gateway.core.idempotency import Entry, Reservation, StoredAnswer
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.query import load_queries

_SQL = load_queries("idempotency")


class SqliteIdempotencyStore:
    """`gateway.store.idempotency.IdempotencyStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, wanted: Reservation, now: float) -> Entry | None:
        """Reserve the key, durably: None when it is now the caller's, else what is known of it."""
        values = {**_held(wanted), "now": now}

        def write(connection: sqlite3.Connection) -> Entry | None:
            if connection.execute(_SQL["begin"], values).rowcount == 1:
                return None
            return _entry(connection.execute(_SQL["get"], values).fetchone())

        return await self._database.write(write)

    async def finish(self, held: Reservation, answer: StoredAnswer) -> bool:
        """Store the answer; False when the reservation is not there any more."""
        values = {
            **_held(held),
            "status": answer.status,
            "headers": orjson.dumps(answer.headers),
            "body": answer.body,
        }
        return await self._database.execute(_SQL["finish"], values) == 1

    async def free(self, held: Reservation) -> bool:
        """Forget the reservation; False when it is not there any more."""
        return await self._database.execute(_SQL["free"], _held(held)) == 1

    async def interrupt(self, held: Reservation) -> bool:
        """End its lease: how the request ended is not known. False when it is not there."""
        return await self._database.execute(_SQL["interrupt"], _held(held)) == 1

    async def void(self) -> int:
        """End every lease, for the file's only process, at its start; how many."""
        return await self._database.execute(_SQL["void"], {})

    async def prune(self, now: float) -> int:
        """Delete what has expired; how many."""
        return await self._database.execute(_SQL["prune"], {"now": now})


def _held(reservation: Reservation) -> Mapping[str, object]:
    return {
        "scope": reservation.scope,
        "key": reservation.key,
        "fingerprint": reservation.fingerprint,
        "token": reservation.token,
        "request_id": reservation.request_id,
        "started_at": reservation.started_at,
        "lease_until": reservation.lease_until,
        "expires_at": reservation.expires_at,
    }


def _entry(row: sqlite3.Row) -> Entry:
    reservation = Reservation(
        scope=row["scope"],
        key=row["key"],
        fingerprint=row["fingerprint"],
        token=row["token"],
        request_id=row["request_id"],
        started_at=row["started_at"],
        lease_until=row["lease_until"],
        expires_at=row["expires_at"],
    )
    if row["status"] is None:
        return Entry(reservation)
    headers = tuple((name, value) for name, value in orjson.loads(row["headers"]))
    return Entry(reservation, StoredAnswer(row["status"], headers, row["body"]))
