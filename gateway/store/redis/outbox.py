"""The outbox in Redis: each partition has its own, and claims go where the longest due are."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from gateway.core.outbox import Attempt, Backlog, Claim, Delivery, Message
from gateway.core.retry import Dead, Delivered, RetryAt, Verdict
from gateway.store.codec import decode_cursor, encode_cursor
from gateway.store.outbox import DeliveryQuery
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Part
from gateway.store.redis.layout import Layout, Partition
from gateway.store.redis.message import (
    attempt_line,
    delivery_of,
    flag,
    message_arguments,
    message_of,
)
from gateway.store.redis.page import BUDGET, Position, newest_first
from gateway.store.redis.script import Script, load_script

_LIBRARY = ("lib_key", "lib_message")
_ENQUEUE = load_script("message_enqueue", *_LIBRARY)
_CLAIM = load_script("message_claim", *_LIBRARY)
_SETTLE = load_script("message_settle", *_LIBRARY)
_CANCEL = load_script("message_cancel", *_LIBRARY)
_PRUNE = load_script("message_prune", "lib_key")
_DROP = load_script("message_drop", "lib_key")
_PAGE = load_script("message_page", "lib_key", "lib_walk")
_GET = load_script("message_get", "lib_key")
_BACKLOG = load_script("message_backlog", "lib_key")
_STEP = 500  # deleted by one script
_ENQUEUE_STEP = 200  # added by one script
_ROUNDS = 4  # looks at what is due, while others take it away


class RedisOutbox:
    """`gateway.store.outbox.Outbox` over a `Layout`."""

    def __init__(self, client: RedisClient, layout: Layout) -> None:
        self._client = client
        self._layout = layout

    async def enqueue(self, messages: Sequence[Message]) -> None:
        """Add messages that belong to no job change; an id already there is left as it is."""
        of_partition: defaultdict[Partition, list[Message]] = defaultdict(list)
        for message in messages:
            of_partition[self._layout.of_job(message.job_id)].append(message)
        await asyncio.gather(*(self._enqueue(*each) for each in of_partition.items()))

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
        """Claim due messages, those of the partitions first where some are due the longest.

        What another replica is faster to claim is looked for again, a few times.
        """
        passed_over = frozenset(name.encode() for name in busy)
        lease_until = now + lease_seconds
        claims: list[Claim[Message]] = []
        for _ in range(_ROUNDS):
            shares = await self._shares(sink, limit, share, now, passed_over)
            batches = await asyncio.gather(
                *(
                    self._run(_CLAIM, each, (each.stripe, sink, now, lease_until, *_flat(wanted)))
                    for each, wanted in shares.items()
                )
            )
            claims = [
                Claim(message_of(message_id, fields, fields[16]), fence, lease_until)
                for batch in batches
                for message_id, fence, *fields in batch
            ]
            if claims or not shares:
                break
        return sorted(claims, key=lambda claim: (claim.item.due_at, claim.item.sequence))

    async def settle(
        self, claim: Claim[Message], verdict: Verdict, attempt: Attempt, now: float
    ) -> bool:
        """Record an attempt and its verdict; False, and nothing written, when the lease was lost.

        A retry that a later message supersedes meanwhile is not made.
        """
        partition = self._layout.of_job(claim.item.job_id)
        status, due_at, ended = _settled(verdict)
        arguments = (partition.stripe, claim.item.id, claim.fence, status, due_at, now, flag(ended))
        done = await self._run(_SETTLE, partition, (*arguments, attempt_line(attempt)))
        return bool(done)

    async def next_due_at(self, sink: str) -> float | None:
        """When the earliest waiting message is due (a lease's end counts)."""
        replies = await self._client.commands(
            [
                ("ZRANGE", each.prefix + b":ready:" + sink.encode(), 0, 0, "WITHSCORES")
                for each in self._layout.of_jobs
            ]
        )
        return min((float(reply[1]) for reply in replies if reply), default=None)

    async def deliveries(self, query: DeliveryQuery) -> tuple[Sequence[Delivery], str | None]:
        """A page of the delivery log, newest first, its messages without their bodies.

        Raises InvalidRequest for a malformed cursor.
        """
        start = Position() if query.cursor is None else Position(*decode_cursor(query.cursor))
        partitions = self._layout.of_jobs
        if query.job_id is not None:
            partitions = (self._layout.of_job(query.job_id),)
        wanted = (query.status or "", query.kind or "", query.job_id or "")

        async def walk(partition: Partition, position: Position, limit: int) -> Any:
            arguments = (query.destination, position.at, position.id, limit, BUDGET, *wanted)
            return await self._run(_PAGE, partition, arguments)

        found = await newest_first(partitions, walk, start, query.limit + 1)
        page = [delivery_of(each.id.encode(), *each.item) for each in found[: query.limit]]
        if len(found) <= query.limit:
            return page, None
        return page, encode_cursor(page[-1].message.created_at, page[-1].message.id)

    async def get(self, message_id: str) -> Delivery | None:
        """One delivery with its attempts; here the message has its body."""
        replies = await self._everywhere(_GET, (message_id,))
        for reply in replies:
            if reply is not None:
                return delivery_of(message_id.encode(), *reply)
        return None

    async def backlog(self) -> Sequence[Backlog]:
        """What waits, a line each sink."""
        lines: dict[str, Backlog] = {}
        for reply in await self._everywhere(_BACKLOG, ()):
            for name, waiting, in_flight, oldest in reply:
                sink = name.decode()
                known = lines.get(sink, Backlog(sink, 0, 0, None))
                ages = [at for at in (known.oldest_at, float(oldest) if oldest else None) if at]
                lines[sink] = Backlog(
                    sink,
                    known.waiting + waiting,
                    known.in_flight + in_flight,
                    min(ages, default=None),
                )
        return [
            lines[sink] for sink in sorted(lines) if lines[sink].waiting or lines[sink].in_flight
        ]

    async def cancel(self, destination: str, now: float) -> int:
        """Mark everything waiting for a destination cancelled; how many."""
        counts = (self._cancel(each, destination, now) for each in self._layout.of_jobs)
        return sum(await asyncio.gather(*counts))

    async def drop_payloads(self, before: float) -> int:
        """Forget the bodies of deliveries that finished before; how many."""
        return await self._in_steps(_DROP, before)

    async def prune(self, before: float) -> int:
        """Delete ended deliveries and their attempts that finished before; how many."""
        return await self._in_steps(_PRUNE, before)

    async def _enqueue(self, partition: Partition, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), _ENQUEUE_STEP):
            step = messages[start : start + _ENQUEUE_STEP]
            await self._run(_ENQUEUE, partition, (partition.stripe, *message_arguments(step)))

    async def _shares(
        self, sink: str, limit: int, share: int, now: float, passed_over: frozenset[bytes]
    ) -> Mapping[Partition, Counter[bytes]]:
        """How many messages of which destination to claim of each partition.

        The destinations due the longest come first, one message each; while the limit is not
        reached they have a further one each, up to `share` over all partitions.
        """
        many = limit + len(passed_over)
        window: tuple[Part, ...] = ("-inf", now, "WITHSCORES", "LIMIT", 0, many)
        partitions = self._layout.of_jobs
        name = b":ready:" + sink.encode()
        replies = await self._client.commands(
            [("ZRANGEBYSCORE", each.prefix + name, *window) for each in partitions]
        )
        heads = sorted(
            (float(reply[i + 1]), reply[i], stripe)
            for stripe, reply in enumerate(replies)
            for i in range(0, len(reply), 2)
            if reply[i] not in passed_over
        )
        taken: Counter[bytes] = Counter()
        shares: defaultdict[Partition, Counter[bytes]] = defaultdict(Counter)
        for _, destination, stripe in heads * share:
            if taken.total() == limit:
                break
            if taken[destination] < share:
                taken[destination] += 1
                shares[partitions[stripe]][destination] += 1
        return shares

    async def _cancel(self, partition: Partition, destination: str, now: float) -> int:
        cursor, total = b"0", 0
        while True:
            arguments = (partition.stripe, destination, now, cursor)
            cursor, count = await self._run(_CANCEL, partition, arguments)
            total += int(count)
            if cursor == b"0":
                return total

    async def _in_steps(self, script: Script, before: float) -> int:
        async def step(partition: Partition) -> int:
            total = 0
            while count := await self._run(script, partition, (before, _STEP)):
                total += int(count)
            return total

        return sum(await asyncio.gather(*(step(each) for each in self._layout.of_jobs)))

    async def _everywhere(self, script: Script, args: Sequence[Part]) -> Sequence[Any]:
        return await asyncio.gather(
            *(self._run(script, each, args) for each in self._layout.of_jobs)
        )

    async def _run(self, script: Script, partition: Partition, args: Sequence[Part]) -> Any:
        return await self._client.run(script, (partition.prefix,), args)


def _flat(wanted: Mapping[bytes, int]) -> Iterator[Part]:
    for destination, count in wanted.items():
        yield destination
        yield count


def _settled(verdict: Verdict) -> tuple[str, Part, bool]:
    """The status, when it is due again ('' for never), and whether it has ended."""
    match verdict:
        case Delivered():
            return "succeeded", "", True
        case RetryAt(at):
            return "retrying", at, False
        case Dead(status):
            return status.value, "", True
