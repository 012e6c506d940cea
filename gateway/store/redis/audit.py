"""The audit log in Redis: each partition adds its lines with what they tell of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson

from gateway.core.audit import AuditEntry
from gateway.store.audit import AuditQuery
from gateway.store.codec import decode_cursor, encode_cursor, malformed_cursor
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Part
from gateway.store.redis.layout import Layout, Partition
from gateway.store.redis.page import BUDGET, Position, newest_first
from gateway.store.redis.script import Script, load_script

_APPEND = load_script("audit_append", "lib_key")
_PAGE = load_script("audit_page", "lib_key", "lib_walk")
_PRUNE = load_script("audit_prune", "lib_key")
_STEP = 500
_DIGITS = 18


class RedisAuditLog:
    """`gateway.store.audit.AuditLog` over a `Layout`."""

    def __init__(self, client: RedisClient, layout: Layout) -> None:
        self._client = client
        self._layout = layout

    async def append(self, entries: Sequence[AuditEntry]) -> None:
        """Add lines that belong to no change of a webhook."""
        partition = self._layout.of_webhooks
        for start in range(0, len(entries), _STEP):
            arguments: list[Part] = [partition.stripe]
            for entry in entries[start : start + _STEP]:
                arguments += (entry.at, entry.action, entry.webhook_id, audit_line(entry))
            await self._run(_APPEND, partition, arguments)

    async def list(self, query: AuditQuery) -> tuple[Sequence[AuditEntry], str | None]:
        """A page of lines, newest first, and the next cursor.

        Raises InvalidRequest for a malformed cursor.
        """
        action = query.action or ""
        wanted = (
            "-inf" if query.since is None else query.since,
            "+inf" if query.until is None else query.until,
            query.webhook_id or "",
            action.removesuffix("*"),
        )

        async def walk(partition: Partition, position: Position, limit: int) -> Any:
            arguments = (position.at, position.id, limit, BUDGET, *wanted)
            return await self._run(_PAGE, partition, arguments)

        start = _position(query.cursor)
        found = await newest_first(self._layout.all, walk, start, query.limit + 1)
        page = [(each, _entry(each.at, each.item)) for each in found[: query.limit]]
        cursor = None
        if len(found) > query.limit:
            last = page[-1][0]
            cursor = encode_cursor(last.at, str(int(last.id)))
        return [entry for _, entry in page], cursor

    async def prune(self, before: float) -> int:
        """Delete lines from before; how many. The last day's stay."""

        async def step(partition: Partition) -> int:
            total = 0
            while count := await self._run(_PRUNE, partition, (before, _STEP)):
                total += count
            return total

        return sum(await asyncio.gather(*(step(each) for each in self._layout.all)))

    async def _run(self, script: Script, partition: Partition, args: Sequence[Part]) -> Any:
        return await self._client.run(script, (partition.prefix,), args)


def audit_line(entry: AuditEntry) -> bytes:
    """A line as scripts take and keep it; its time stands apart."""
    return orjson.dumps(
        {
            "action": entry.action,
            "webhook_id": entry.webhook_id,
            "actor": entry.actor,
            "details": entry.details,
        }
    )


def audit_arguments(entry: AuditEntry | None) -> tuple[Part, Part, Part]:
    """What `tell` of lib_webhook.lua takes."""
    return ("", "", "") if entry is None else (entry.at, entry.action, audit_line(entry))


def _entry(at: float, line: bytes) -> AuditEntry:
    said = orjson.loads(line)
    return AuditEntry(at, said["action"], said["webhook_id"], said["actor"], said["details"])


def _position(cursor: str | None) -> Position:
    if cursor is None:
        return Position()
    at, number = decode_cursor(cursor)
    if not (number.isascii() and number.isdigit() and len(number) <= _DIGITS):
        raise malformed_cursor()
    return Position(at, number.zfill(_DIGITS))
