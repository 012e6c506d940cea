"""Webhooks in Redis: a hash each, beside its document what the gateway counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.core.audit import AuditEntry, Change, change_entry
from gateway.core.webhook import Webhook, WebhookStatus
from gateway.store.codec import (
    decode_cursor,
    encode_cursor,
    webhook_document,
    webhook_from_document,
)
from gateway.store.redis.audit import audit_arguments
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Part
from gateway.store.redis.job import RedisJobStore
from gateway.store.redis.layout import Layout
from gateway.store.redis.message import flag
from gateway.store.redis.page import BUDGET
from gateway.store.redis.script import Script, load_script
from gateway.store.webhook import WebhookQuery

_LIBRARY = ("lib_key", "lib_webhook")
_PUT = load_script("webhook_put", *_LIBRARY)
_DELETE = load_script("webhook_delete", *_LIBRARY)
_DISABLE = load_script("webhook_disable", *_LIBRARY)
_NOTE = load_script("webhook_note", *_LIBRARY)
_GET = load_script("webhook_get", *_LIBRARY)
_PAGE = load_script("webhook_page", *_LIBRARY)
_CANDIDATES = load_script("webhook_candidates", *_LIBRARY)
_CALLBACKS = load_script("webhook_callbacks", *_LIBRARY)
_STEP = 200


class RedisWebhookStore:
    """`gateway.store.webhook.WebhookStore` over a `Layout`; `jobs` says whose job is over."""

    def __init__(self, client: RedisClient, layout: Layout, jobs: RedisJobStore) -> None:
        self._client = client
        self._partition = layout.of_webhooks
        self._jobs = jobs

    async def add(self, webhook: Webhook, entry: AuditEntry | None = None) -> bool:
        """Insert; False when the id is there already."""
        counts = (
            webhook.consecutive_failures,
            _optional(webhook.last_success_at),
            _optional(webhook.failing_since),
            webhook.exhausted_count,
        )
        return await self._change(_PUT, entry, (webhook.id, "", *_columns(webhook), *counts))

    async def get(self, webhook_id: str) -> Webhook | None:
        """One webhook."""
        found = await self._run(_GET, (webhook_id,))
        return None if found is None else _webhook(found)

    async def replace(
        self, webhook: Webhook, revision: int, entry: AuditEntry | None = None
    ) -> bool:
        """Store it if the stored revision equals `revision`; False when it changed or is gone.

        The stored revision is then `revision` + 1, whatever `webhook` says.
        """
        columns = _columns(replace(webhook, revision=revision + 1))
        return await self._change(_PUT, entry, (webhook.id, revision, *columns))

    async def delete(self, webhook_id: str, entry: AuditEntry | None = None) -> bool:
        """Remove; False when there is none."""
        return await self._change(_DELETE, entry, (webhook_id,))

    async def list(self, query: WebhookQuery) -> tuple[Sequence[Webhook], str | None]:
        """A page of webhooks, oldest first, and the next cursor.

        Raises InvalidRequest for a malformed cursor.
        """
        at: Part = ""
        last: Part = ""
        if query.cursor is not None:
            at, last = decode_cursor(query.cursor)
        wanted = (query.owner or "", query.job_id or "", query.status or "")
        page: list[Webhook] = []
        while len(page) <= query.limit:
            left = query.limit + 1 - len(page)
            is_end, at, last, *rows = await self._run(_PAGE, (at, last, left, BUDGET, *wanted))
            page += map(_webhook, rows)
            if is_end:
                break
        shown = page[: query.limit]
        more = len(page) > query.limit
        return shown, encode_cursor(shown[-1].created_at, shown[-1].id) if more else None

    async def candidates(self, owner: str, job_id: str) -> Sequence[Webhook]:
        """Every active webhook that may want events of this owner's job."""
        return [_webhook(row) for row in await self._run(_CANDIDATES, (owner, job_id))]

    async def count(self, owner: str) -> int:
        """How many an owner has, per-job ones apart."""
        key = self._partition.prefix + b":list:owner:" + owner.encode()
        number: int = await self._client.command("ZCARD", key)
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
        found = await self._run(_NOTE, (webhook_id, flag(ok), now, flag(exhausted)))
        return None if found is None else _webhook(found)

    async def disable(
        self, webhook_id: str, reason: str, now: float, entry: AuditEntry | None = None
    ) -> bool:
        """Disable it, saying why; False when it was not active."""
        return await self._change(_DISABLE, entry, (webhook_id, reason, now))

    async def prune(self, before: float, now: float) -> int:
        """Delete the callbacks of jobs that ended before, and of none; how many."""
        total = 0
        at, last = b"", b""
        while True:
            found = await self._run(_CALLBACKS, (before, at, last, _STEP))
            for _, _, row in found:
                total += await self._expire(_webhook(row), before, now)
            if len(found) < _STEP:
                return total
            at, last, _ = found[-1]

    async def _expire(self, callback: Webhook, before: float, now: float) -> bool:
        """Delete a callback whose job is over: an end is final, it cannot change meanwhile."""
        job = await self._jobs.get(callback.job_id or "")
        if job is not None and (job.finished_at is None or job.finished_at >= before):
            return False
        entry = change_entry(Change.EXPIRED, callback, now, job_id=callback.job_id)
        return await self.delete(callback.id, entry)

    async def _change(self, script: Script, entry: AuditEntry | None, args: Sequence[Part]) -> bool:
        told = (self._partition.stripe, *audit_arguments(entry))
        return bool(await self._run(script, (*told, *args)))

    async def _run(self, script: Script, args: Sequence[Part]) -> Any:
        return await self._client.run(script, (self._partition.prefix,), args)


def _columns(webhook: Webhook) -> Sequence[Part]:
    return (
        webhook.revision,
        webhook.owner,
        webhook.job_id or "",
        flag(webhook.all_owners),
        webhook.status.value,
        webhook.disabled_reason or "",
        webhook.created_at,
        webhook.updated_at,
        webhook_document(webhook),
    )


def _webhook(row: Sequence[bytes | None]) -> Webhook:
    """The webhook in a row of lib_webhook.lua."""
    document, status, reason, updated_at, revision, failures, success, failing, exhausted, *_ = row
    return replace(
        webhook_from_document(document or b"{}"),
        status=WebhookStatus((status or b"").decode()),
        disabled_reason=None if reason is None else reason.decode(),
        updated_at=float(updated_at or 0),
        revision=int(revision or 0),
        consecutive_failures=int(failures or 0),
        last_success_at=_time(success),
        failing_since=_time(failing),
        exhausted_count=int(exhausted or 0),
    )


def _time(value: bytes | None) -> float | None:
    return None if value is None else float(value)


def _optional(value: float | None) -> Part:
    return "" if value is None else value
