"""API keys in SQLite."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence

from gateway.core.credential import Key
from gateway.store.codec import decode_cursor, encode_cursor, key_document, key_from_document
from gateway.store.key import KeyChanges, KeyRecord
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.query import load_queries

_SQL = load_queries("key")


class SqliteKeyStore:
    """`gateway.store.key.KeyStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: Key) -> bool:
        """Insert; False when its id or its hash is there already."""
        return await self._database.execute(_SQL["insert"], _columns(key)) == 1

    async def rotate(self, key_id: str, successor: Key, ends_at: float, now: float) -> bool:
        """In one step add the successor, and let the key end at `ends_at` if it does not before.

        False, and nothing written, when the key is not there or has ended at `now`, or the
        successor's id or hash is there already.
        """

        def write(connection: sqlite3.Connection) -> bool:
            values = {"id": key_id, "ends_at": ends_at, "now": now}
            connection.execute("SAVEPOINT rotation")
            done = (
                connection.execute(_SQL["end"], values).rowcount == 1
                and connection.execute(_SQL["insert"], _columns(successor)).rowcount == 1
            )
            if not done:
                connection.execute("ROLLBACK TO rotation")
            connection.execute("RELEASE rotation")
            return done

        return await self._database.write(write)

    async def revoke(self, key_id: str, now: float) -> bool:
        """End a key at once; False when it is not there or was revoked before."""
        return await self._database.execute(_SQL["revoke"], {"id": key_id, "now": now}) == 1

    async def get(self, key_id: str) -> KeyRecord | None:
        """One key, whether it has ended or not."""
        found = await self._database.fetch(_SQL["get"], {"id": key_id})
        return _record(found[0]) if found else None

    async def list(
        self, owner: str | None, cursor: str | None, limit: int
    ) -> tuple[Sequence[KeyRecord], str | None]:
        """A page of an owner's keys (None: of all), oldest first, and the next cursor.

        Raises InvalidRequest for a malformed cursor.
        """
        cursor_at, cursor_id = (-math.inf, "") if cursor is None else decode_cursor(cursor)
        values = {
            "owner": owner,
            "cursor_at": cursor_at,
            "cursor_id": cursor_id,
            "limit": limit + 1,
        }
        name = "list" if owner is None else "list_of_owner"
        rows = await self._database.fetch(_SQL[name], values)
        page = [_record(row) for row in rows[:limit]]
        more = len(rows) > limit
        return page, encode_cursor(page[-1].key.created_at, page[-1].key.key_id) if more else None

    async def changes(self, after: int) -> KeyChanges:
        """The keys that changed after a generation; all keys after 0."""

        def read(connection: sqlite3.Connection) -> KeyChanges:
            (generation,) = connection.execute(_SQL["generation"]).fetchone()
            rows = connection.execute(_SQL["changes"], {"after": after}).fetchall()
            return KeyChanges(generation, [_key(row) for row in rows])

        return await self._database.read(read)

    async def note_used(self, used: Mapping[str, float]) -> None:
        """Remember when keys (by id) were last used; an earlier time changes nothing."""
        values = [{"key_id": key_id, "at": at} for key_id, at in used.items()]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_SQL["note_used"], values)

        await self._database.write(write)

    async def watch(self) -> AsyncIterator[None]:
        """Ends at once: the file is this process's alone."""
        never: tuple[None, ...] = ()
        for change in never:
            yield change


def _columns(key: Key) -> Mapping[str, object]:
    return {
        "id": key.key_id,
        "sha256": key.sha256,
        "owner": key.owner,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "document": key_document(key),
    }


def _key(row: sqlite3.Row) -> Key:
    return key_from_document(
        row["document"], expires_at=row["expires_at"], revoked_at=row["revoked_at"]
    )


def _record(row: sqlite3.Row) -> KeyRecord:
    return KeyRecord(_key(row), row["last_used_at"])
