"""Jobs in Redis: a hash each with its document, and the indexes by which they are found."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from gateway.core.job import Job, JobChange
from gateway.core.outbox import Claim, Message
from gateway.store.codec import decode_cursor, encode_cursor, job_document, job_from_document
from gateway.store.job import JobQuery, TimelineEntry
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Part
from gateway.store.redis.layout import Layout, Partition
from gateway.store.redis.message import message_arguments
from gateway.store.redis.page import BUDGET, Position, newest_first
from gateway.store.redis.script import Script, load_script

_RECORD = load_script("job_record", "lib_key", "lib_message")
_CLAIM = load_script("job_claim", "lib_key")
_KEEP = load_script("job_keep", "lib_key")
_RELEASE = load_script("job_release", "lib_key")
_VOID = load_script("job_void", "lib_key")
_PAGE = load_script("job_page", "lib_key", "lib_walk")
_UNFINISHED = load_script("job_unfinished", "lib_key")
_PRUNE = load_script("job_prune", "lib_key")
_VOID_MESSAGES = load_script("message_void", "lib_key", "lib_message")
_STEP = 200  # jobs that one script hands out, keeps or reads
_HEAD = b"\n"  # between what an event is and its body; JSON has none


class RedisJobStore:
    """`gateway.store.job.JobStore` over a `Layout`.

    Each change is published on `layout.channel` by the script that commits it.
    """

    def __init__(self, client: RedisClient, layout: Layout) -> None:
        self._client = client
        self._layout = layout

    async def record(
        self, change: JobChange, timeline: Sequence[TimelineEntry], messages: Sequence[Message]
    ) -> bool:
        """Commit a job's new state with its events and messages; False when it is stale.

        The stored version is one more than that of `change.before`, and 1 for a new job. Every
        message is about this job.
        """
        before = None if change.before is None else change.before.version
        job = replace(change.job, version=1 + (before or 0))
        partition = self._layout.of_job(job.id)
        arguments = (
            partition.stripe,
            "" if before is None else before,
            job.id,
            job.version,
            job.owner,
            job.subject or "",
            job.upstream,
            job.state.value,
            job.created_at,
            _ended_at(job),
            job_document(job),
            self._layout.channel,
            orjson.dumps([job.id, job.version]),
            len(timeline),
            *map(_event_line, timeline),
            *message_arguments(messages),
        )
        return bool(await self._run(_RECORD, partition, arguments))

    async def get(self, job_id: str) -> Job | None:
        """The job, with its stored version."""
        key = self._layout.of_job(job_id).prefix + b":job:" + job_id.encode()
        document = await self._client.command("HGET", key, "document")
        return None if document is None else job_from_document(document)

    async def latest_of_subject(self, subject: str) -> Job | None:
        """The newest job about a subject."""
        page, _ = await self.list(JobQuery(subject=subject, limit=1))
        return page[0] if page else None

    async def claim_due(
        self, upstream: str | None, limit: int, now: float, lease_seconds: float
    ) -> Sequence[Claim[Job]]:
        """Claim unfinished jobs that are due and not leased, the longest due first.

        At most 200 of a partition at once.
        """
        lease_until = now + lease_seconds
        quotas = await self._quotas(upstream, min(limit, _STEP * len(self._layout.of_jobs)), now)
        batches = await asyncio.gather(
            *(
                self._run(_CLAIM, each, (upstream or "", quota, now, lease_until))
                for each, quota in quotas.items()
            )
        )
        found = sorted((claim for batch in batches for claim in batch), key=lambda c: float(c[0]))
        return [
            Claim(job_from_document(document), fence, lease_until) for _, fence, document in found
        ]

    async def renew(self, claims: Sequence[Claim[Job]], lease_until: float) -> Collection[str]:
        """Keep these claims; the ids of the jobs whose claim was not lost to another."""
        held: dict[Partition, list[Part]] = {}
        for claim in claims:
            partition = self._layout.of_job(claim.item.id)
            held.setdefault(partition, []).extend((claim.item.id, claim.fence))
        batches = await asyncio.gather(
            *(
                self._run(_KEEP, partition, (lease_until, *pairs[at : at + 2 * _STEP]))
                for partition, pairs in held.items()
                for at in range(0, len(pairs), 2 * _STEP)
            )
        )
        return {job_id.decode() for batch in batches for job_id in batch}

    async def release(self, claim: Claim[Job], due_at: float) -> bool:
        """Give a claim back, to be due again at `due_at`; False when it was lost to another."""
        partition = self._layout.of_job(claim.item.id)
        return bool(await self._run(_RELEASE, partition, (claim.item.id, claim.fence, due_at)))

    async def unfinished(self) -> Sequence[Job]:
        """Every job that has not ended, oldest first."""
        parts = await asyncio.gather(*(self._unfinished(each) for each in self._layout.of_jobs))
        jobs = {job.id: job for part in parts for job in part}
        return sorted(jobs.values(), key=lambda job: (job.created_at, job.id))

    async def void_leases(self) -> int:
        """Make every claim, of jobs and of messages, void; how many there were.

        For tests and repairs, while no other replica works: each would lose what it is at.
        """
        total = 0
        for partition in self._layout.of_jobs:
            total += await self._in_steps(_VOID, partition)
            for sink in await self._client.command("SMEMBERS", partition.prefix + b":sinks"):
                total += await self._in_steps(_VOID_MESSAGES, partition, sink)
        return total

    async def list(self, query: JobQuery) -> tuple[Sequence[Job], str | None]:
        """A page of jobs, newest first, and the next page's cursor.

        Raises InvalidRequest for a malformed cursor.
        """
        start = Position() if query.cursor is None else Position(*decode_cursor(query.cursor))
        wanted = (
            "-inf" if query.since is None else query.since,
            "+inf" if query.until is None else query.until,
            query.owner or "",
            query.state or "",
            query.subject or "",
        )

        async def walk(partition: Partition, position: Position, limit: int) -> Any:
            arguments = (position.at, position.id, limit, BUDGET, *wanted)
            return await self._run(_PAGE, partition, arguments)

        found = await newest_first(self._layout.of_jobs, walk, start, query.limit + 1)
        page = [job_from_document(each.item) for each in found[: query.limit]]
        if len(found) <= query.limit:
            return page, None
        return page, encode_cursor(page[-1].created_at, page[-1].id)

    async def timeline(
        self, job_id: str, after_sequence: int = 0, limit: int | None = None
    ) -> Sequence[TimelineEntry]:
        """The job's events in order, at most `limit` of them."""
        key = self._layout.of_job(job_id).prefix + b":events:" + job_id.encode()
        entries = map(_event_of, await self._client.command("LRANGE", key, 0, -1))
        return [entry for entry in entries if entry.sequence > after_sequence][:limit]

    async def prune(self, before: float) -> int:
        """Delete jobs that ended before, and their timelines; how many."""
        counts = (self._in_steps(_PRUNE, each, before) for each in self._layout.of_jobs)
        return sum(await asyncio.gather(*counts))

    async def _quotas(
        self, upstream: str | None, limit: int, now: float
    ) -> Mapping[Partition, int]:
        """How many to claim of each partition: as many as are among the longest due of all."""
        index = b":due" if upstream is None else b":due:of:" + upstream.encode()
        many = min(limit, _STEP)
        replies = await self._client.commands(
            [
                (
                    "ZRANGEBYSCORE",
                    each.prefix + index,
                    "-inf",
                    now,
                    "WITHSCORES",
                    "LIMIT",
                    0,
                    many,
                )
                for each in self._layout.of_jobs
            ]
        )
        due = sorted(
            (float(at), partition.stripe)
            for partition, reply in zip(self._layout.of_jobs, replies, strict=True)
            for at in reply[1::2]
        )
        return Counter(self._layout.of_jobs[stripe] for _, stripe in due[:limit])

    async def _unfinished(self, partition: Partition) -> Sequence[Job]:
        jobs: list[Job] = []
        at, last = b"", b""
        while True:
            found = await self._run(_UNFINISHED, partition, (at, last, _STEP))
            jobs += [job_from_document(document) for _, _, document in found]
            if len(found) < _STEP:
                return jobs
            at, last, _ = found[-1]

    async def _in_steps(self, script: Script, partition: Partition, *args: Part) -> int:
        total = 0
        while count := await self._run(script, partition, (*args, _STEP)):
            total += count
        return total

    async def _run(self, script: Script, partition: Partition, args: Sequence[Part]) -> Any:
        return await self._client.run(script, (partition.prefix,), args)


def _ended_at(job: Job) -> Part:
    """When it ended; '' for one that has not."""
    if not job.state.terminal:
        return ""
    return job.observed_at if job.finished_at is None else job.finished_at


def _event_line(entry: TimelineEntry) -> bytes:
    head = orjson.dumps([entry.sequence, entry.type, entry.at, entry.event_id])
    return head + _HEAD + entry.body


def _event_of(line: bytes) -> TimelineEntry:
    head, _, body = line.partition(_HEAD)
    sequence, kind, at, event_id = orjson.loads(head)
    return TimelineEntry(sequence, kind, at, event_id, body)
