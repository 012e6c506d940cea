"""Webhooks in SQLite: a document each, beside it what is searched and what the gateway counts."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway.core.webhook import Webhook, WebhookStatus
from gateway.store.codec import (
    decode_cursor,
    encode_cursor,
    webhook_document,
    webhook_from_document,
)
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.query import load_queries

_SQL = load_queries("webhook")


class SqliteWebhookStore:
    """`gateway.store.base.WebhookStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, webhook: Webhook) -> bool:
        """Insert; False when the id is there already."""
        return await self._database.execute(_SQL["insert"], _columns(webhook)) == 1

    async def get(self, webhook_id: str) -> Webhook | None:
        """One webhook."""
        found = await self._database.fetch(_SQL["get"], {"id": webhook_id})
        return _webhook(found[0]) if found else None

    async def replace(self, webhook: Webhook, revision: int) -> bool:
        """Store it if the stored revision equals `revision`; False when it changed or is gone.

        The stored revision is then `revision` + 1, whatever `webhook` says.
        """
        values = {"before": revision, **_columns(replace(webhook, revision=revision + 1))}
        return await self._database.execute(_SQL["replace"], values) == 1

    async def delete(self, webhook_id: str) -> bool:
        """Remove; False when there is none."""
        return await self._database.execute(_SQL["delete"], {"id": webhook_id}) == 1

    async def list(
        self, owner: str | None, cursor: str | None, limit: int
    ) -> tuple[Sequence[Webhook], str | None]:
        """A page of an owner's webhooks (None: of all owners), oldest first, and the next cursor.

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
        page = [_webhook(row) for row in rows[:limit]]
        more = len(rows) > limit
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

    async def note_outcome(self, webhook_id: str, ok: bool, now: float) -> None:  # noqa: FBT001 - the protocol's
        """Count a consecutive failure, or reset the count and remember the success."""
        name = "note_success" if ok else "note_failure"
        await self._database.execute(_SQL[name], {"id": webhook_id, "now": now})

    async def disable(self, webhook_id: str, reason: str, now: float) -> bool:
        """Disable it, saying why; False when it was not active."""
        values = {"id": webhook_id, "reason": reason, "now": now}
        return await self._database.execute(_SQL["disable"], values) == 1


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
        "document": webhook_document(webhook),
    }


def _webhook(row: sqlite3.Row) -> Webhook:
    return replace(
        webhook_from_document(row["document"]),
        status=WebhookStatus(row["status"]),
        disabled_reason=row["disabled_reason"],
        updated_at=row["updated_at"],
        revision=row["revision"],
        consecutive_failures=row["consecutive_failures"],
        last_success_at=row["last_success_at"],
    )
