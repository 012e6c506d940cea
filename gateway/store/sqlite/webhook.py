"""Webhooks in SQLite: a document each, beside it what is searched and what the gateway counts."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from gateway.core.audit import AuditEntry, Change, change_entry
from gateway.core.webhook import Webhook
from gateway.store.codec import (
    decode_cursor,
    encode_cursor,
    webhook_document,
    webhook_from_document,
)
from gateway.store.sqlite.audit import append_entries
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.query import load_queries
from gateway.store.webhook import WebhookQuery

_SQL = load_queries("webhook")
_PRUNE_STEP = 500
_KNOWN = 10_000

T = TypeVar("T")


class SqliteWebhookStore:
    """`gateway.store.webhook.WebhookStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # The file is this process's alone, so that what was read stays true until it is written.
        self._known: dict[str, Webhook] = {}
        self._writes = 0

    async def add(self, webhook: Webhook, entry: AuditEntry | None = None) -> bool:
        """Insert; False when the id is there already."""
        return await self._change("insert", _columns(webhook), entry)

    async def get(self, webhook_id: str) -> Webhook | None:
        """One webhook; each attempt at a delivery asks, so that most come from memory."""
        if (known := self._known.get(webhook_id)) is not None:
            return known
        writes = self._writes
        found = await self._database.fetch(_SQL["get"], {"id": webhook_id})
        if not found:
            return None
        webhook = _webhook(found[0])
        if writes == self._writes:  # else this may be what a write has just replaced
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[webhook_id] = webhook
        return webhook

    async def replace(
        self, webhook: Webhook, revision: int, entry: AuditEntry | None = None
    ) -> bool:
        """Store it if the stored revision equals `revision`; False when it changed or is gone.

        The stored revision is then `revision` + 1, whatever `webhook` says.
        """
        values = {"before": revision, **_columns(replace(webhook, revision=revision + 1))}
        return await self._change("replace", values, entry)

    async def delete(self, webhook_id: str, entry: AuditEntry | None = None) -> bool:
        """Remove; False when there is none."""
        return await self._change("delete", {"id": webhook_id}, entry)

    async def list(self, query: WebhookQuery) -> tuple[Sequence[Webhook], str | None]:
        """A page of webhooks, oldest first, and the next cursor.

        Raises InvalidRequest for a malformed cursor.
        """
        start = (-math.inf, "") if query.cursor is None else decode_cursor(query.cursor)
        values = {
            "owner": query.owner,
            "job_id": query.job_id,
            "status": query.status,
            "cursor_at": start[0],
            "cursor_id": start[1],
            "limit": query.limit + 1,
        }
        name = "list" if query.owner is None else "list_of_owner"
        name = "list_of_job" if query.job_id is not None else name
        rows = await self._database.fetch(_SQL[name], values)
        page = [_webhook(row) for row in rows[: query.limit]]
        more = len(rows) > query.limit
        return page, encode_cursor(page[-1].created_at, page[-1].id) if more else None

    async def candidates(self, owner: str, job_id: str) -> Sequence[Webhook]:
        """Every active webhook that may want events of this owner's job."""
        rows = await self._database.fetch(_SQL["candidates"], {"owner": owner, "job_id": job_id})
        return [_webhook(row) for row in rows]

    async def count(self, owner: str) -> int:
        """How many an owner has, per-job ones apart."""
        rows = await self._database.fetch(_SQL["count"], {"owner": owner})
        number: int = rows[0]["number"]
        return number

    async def note_outcome(
        self,
        webhook_id: str,
        ok: bool,  # noqa: FBT001 - the protocol's
        now: float,
        *,
        exhausted: bool = False,
    ) -> Webhook | None:
        """Count a failure, or reset the counts; the webhook after that, None when it is gone."""
        name = "note_success" if ok else "note_failure"
        values = {"id": webhook_id, "now": now, "exhausted": exhausted}
        rows = await self._write(webhook_id, partial(_rows, name, values))
        return _webhook(rows[0]) if rows else None

    async def disable(
        self, webhook_id: str, reason: str, now: float, entry: AuditEntry | None = None
    ) -> bool:
        """Disable it, saying why; False when it was not active."""
        return await self._change(
            "disable", {"id": webhook_id, "reason": reason, "now": now}, entry
        )

    async def prune(self, before: float, now: float) -> int:
        """Delete the callbacks of jobs that ended before, and of none; how many."""
        values = {"before": before, "limit": _PRUNE_STEP}
        total = 0
        while deleted := await self._database.write(partial(_prune, values, now)):
            total += deleted
        self._forget(*self._known)
        return total

    async def _change(
        self, name: str, values: Mapping[str, object], entry: AuditEntry | None
    ) -> bool:
        return await self._write(str(values["id"]), partial(_changed, name, values, entry))

    async def _write(self, webhook_id: str, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Write to one webhook. It is forgotten before and after: a read may fall in between."""
        self._forget(webhook_id)
        try:
            return await self._database.write(operation)
        finally:
            self._forget(webhook_id)

    def _forget(self, *webhook_ids: str) -> None:
        self._writes += 1
        for webhook_id in webhook_ids:
            self._known.pop(webhook_id, None)


def _changed(
    name: str,
    values: Mapping[str, object],
    entry: AuditEntry | None,
    connection: sqlite3.Connection,
) -> bool:
    if connection.execute(_SQL[name], values).rowcount != 1:
        return False
    if entry is not None:
        append_entries([entry], connection)
    return True


def _rows(
    name: str, values: Mapping[str, object], connection: sqlite3.Connection
) -> list[sqlite3.Row]:
    return connection.execute(_SQL[name], values).fetchall()


def _prune(values: Mapping[str, object], now: float, connection: sqlite3.Connection) -> int:
    gone = [_webhook(row) for row in _rows("prune", values, connection)]
    entries = [
        change_entry(Change.EXPIRED, webhook, now, job_id=webhook.job_id) for webhook in gone
    ]
    append_entries(entries, connection)
    return len(gone)


def _columns(webhook: Webhook) -> Mapping[str, object]:
    return {
        "id": webhook.id,
        "owner": webhook.owner,
        "job_id": webhook.job_id,
        "all_owners": webhook.all_owners,
        "status": webhook.status,
        "disabled_reason": webhook.disabled_reason,
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
        "revision": webhook.revision,
        "consecutive_failures": webhook.consecutive_failures,
        "last_success_at": webhook.last_success_at,
        "failing_since": webhook.failing_since,
        "exhausted_count": webhook.exhausted_count,
        "document": webhook_document(webhook),
    }


def _webhook(row: sqlite3.Row) -> Webhook:
    return webhook_from_document(
        row["document"],
        status=row["status"],
        disabled_reason=row["disabled_reason"],
        updated_at=row["updated_at"],
        revision=row["revision"],
        consecutive_failures=row["consecutive_failures"],
        last_success_at=row["last_success_at"],
        failing_since=row["failing_since"],
        exhausted_count=row["exhausted_count"],
    )
