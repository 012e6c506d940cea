"""Jobs in SQLite: a document each, beside it the columns that are searched."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from gateway.core.job import Job, JobChange
from gateway.core.outbox import Claim, Message
from gateway.store.codec import decode_cursor, encode_cursor, job_document, job_from_document
from gateway.store.job import JobQuery, TimelineEntry
from gateway.store.sqlite.database import Database
from gateway.store.sqlite.message import insert_messages
from gateway.store.sqlite.query import load_queries

_SQL = load_queries("job")
_OUTBOX_SQL = load_queries("outbox")
_PRUNE_STEP = 200  # deleted at once, each with its timeline, so that others get their turn


class SqliteJobStore:
    """`gateway.store.job.JobStore` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self, change: JobChange, timeline: Sequence[TimelineEntry], messages: Sequence[Message]
    ) -> bool:
        """Commit a job's new state with its events and messages; False when it is stale.

        The stored version is one more than that of `change.before`, and 1 for a new job.
        """
        before = None if change.before is None else change.before.version
        job = replace(change.job, version=1 + (before or 0))
        values = {"before": before, **_columns(job)}
        return await self._database.write(partial(_record, values, timeline, messages))

    async def get(self, job_id: str) -> Job | None:
        """The job, with its stored version."""
        return await self._database.read(partial(_one, "get", {"id": job_id}))

    async def latest_of_subject(self, subject: str) -> Job | None:
        """The newest job about a subject."""
        return await self._database.read(partial(_one, "latest_of_subject", {"subject": subject}))

    async def claim_due(
        self, upstream: str | None, limit: int, now: float, lease_seconds: float
    ) -> Sequence[Claim[Job]]:
        """Claim unfinished jobs that are due and not leased, the longest due first."""
        name = "claim_due" if upstream is None else "claim_due_of_upstream"
        values = {
            "upstream": upstream,
            "limit": limit,
            "now": now,
            "lease_until": now + lease_seconds,
        }
        rows = await self._database.write(
            lambda connection: connection.execute(_SQL[name], values).fetchall()
        )
        return [
            Claim(job_from_document(row["document"]), row["fence"], row["lease_until"])
            for row in sorted(rows, key=lambda row: row["due_at"])
        ]

    async def renew(self, claims: Sequence[Claim[Job]], lease_until: float) -> Collection[str]:
        """Keep these claims; the ids of the jobs whose claim was not lost to another."""
        held = [(claim.item.id, claim.fence) for claim in claims]
        return await self._database.write(partial(_renew, held, lease_until))

    async def release(self, claim: Claim[Job], due_at: float) -> bool:
        """Give a claim back; False when it was lost to another. An ended job is not due again."""
        values = {"id": claim.item.id, "fence": claim.fence, "due_at": due_at}
        return await self._database.execute(_SQL["release"], values) == 1

    async def unfinished(self) -> Sequence[Job]:
        """Every job that has not ended, oldest first."""
        rows = await self._database.fetch(_SQL["unfinished"], {})
        return [job_from_document(row["document"]) for row in rows]

    async def void_leases(self) -> int:
        """Make every claim, of jobs and of messages, void; how many there were."""
        return await self._database.write(_void_leases)

    async def list(self, query: JobQuery) -> tuple[Sequence[Job], str | None]:
        """A page of jobs, newest first: `since` <= created_at < `until`.

        Raises InvalidRequest for a malformed cursor.
        """
        cursor = query.cursor
        cursor_at, cursor_id = (math.inf, "") if cursor is None else decode_cursor(cursor)
        values = {
            "owner": query.owner,
            "state": query.state,
            "subject": query.subject,
            "since": query.since,
            "until": query.until,
            "cursor_at": cursor_at,
            "cursor_id": cursor_id,
            "limit": query.limit + 1,
        }
        name = "list" if query.owner is None else "list_of_owner"
        rows = await self._database.fetch(_SQL[name], values)
        jobs = [job_from_document(row["document"]) for row in rows[: query.limit]]
        more = len(rows) > query.limit
        return jobs, encode_cursor(jobs[-1].created_at, jobs[-1].id) if more else None

    async def timeline(
        self, job_id: str, after_sequence: int = 0, limit: int | None = None
    ) -> Sequence[TimelineEntry]:
        """The job's events in order, at most `limit` of them."""
        values = {
            "job_id": job_id,
            "after_sequence": after_sequence,
            "limit": -1 if limit is None else limit,  # a negative one is none
        }
        rows = await self._database.fetch(_SQL["timeline"], values)
        return [TimelineEntry(*row) for row in rows]

    async def prune(self, before: float) -> int:
        """Delete jobs that ended before, and their timelines; how many."""
        values = {"before": before, "limit": _PRUNE_STEP}
        total = 0
        while deleted := await self._database.execute(_SQL["prune"], values):
            total += deleted
        return total


def _columns(job: Job) -> Mapping[str, object]:
    return {
        "id": job.id,
        "owner": job.owner,
        "subject": job.subject,
        "upstream": job.upstream,
        "state": job.state,
        "version": job.version,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "ended": job.state.terminal,
        "document": job_document(job),
    }


def _record(
    values: Mapping[str, object],
    timeline: Sequence[TimelineEntry],
    messages: Sequence[Message],
    connection: sqlite3.Connection,
) -> bool:
    name = "insert" if values["before"] is None else "update"
    if connection.execute(_SQL[name], values).rowcount != 1:
        return False
    for entry in timeline:
        event = {
            "job_id": values["id"],
            "sequence": entry.sequence,
            "type": entry.type,
            "at": entry.at,
            "event_id": entry.event_id,
            "body": entry.body,
        }
        connection.execute(_SQL["insert_event"], event)
    insert_messages(connection, messages)
    return True


def _one(name: str, values: Mapping[str, object], connection: sqlite3.Connection) -> Job | None:
    row = connection.execute(_SQL[name], values).fetchone()
    return None if row is None else job_from_document(row["document"])


def _renew(
    held: Sequence[tuple[str, int]], lease_until: float, connection: sqlite3.Connection
) -> Collection[str]:
    kept = set()
    for job_id, fence in held:
        values = {"id": job_id, "fence": fence, "lease_until": lease_until}
        if connection.execute(_SQL["renew"], values).rowcount == 1:
            kept.add(job_id)
    return kept


def _void_leases(connection: sqlite3.Connection) -> int:
    jobs = connection.execute(_SQL["void_leases"]).rowcount
    messages = connection.execute(_OUTBOX_SQL["void_leases"]).rowcount
    # A message held while its lease ran takes its place behind the earlier ones again.
    connection.execute(_OUTBOX_SQL["arrange_all"])
    return jobs + messages
