"""Messages, webhooks and stand-in stores for tests of the delivery layer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.core.audit import AuditEntry
from gateway.core.error import StoreUnavailable
from gateway.core.outbox import Attempt, Backlog, Claim, Delivery, DeliveryStatus, Message
from gateway.core.retry import Dead, Delivered, Outcome, RetryAt, Schedule, Verdict
from gateway.core.webhook import Webhook, WebhookStatus
from gateway.store.outbox import DeliveryQuery
from gateway.store.webhook import WebhookQuery

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CONDITION_SECONDS = 15.0


def make_message(number: int = 1, **fields: Any) -> Message:
    """Message `number` of job `j1` to webhook `wh_1`, due now."""
    at = time.time()
    values: dict[str, Any] = {
        "id": f"dlv_{number}",
        "sink": "webhook",
        "destination": "wh_1",
        "kind": "job.started",
        "event_id": f"evt_{number}",
        "job_id": "j1",
        "sequence": number,
        "body": b'{"number":%d}' % number,
        "created_at": at,
        "due_at": at,
    }
    return Message(**(values | fields))


def make_webhook(url: str = "https://example.com/hook", **fields: Any) -> Webhook:
    """Webhook `wh_1` of owner `acme`."""
    at = time.time()
    values: dict[str, Any] = {
        "id": "wh_1",
        "owner": "acme",
        "url": url,
        "secret": SECRET,
        "created_at": at,
        "updated_at": at,
    }
    return Webhook(**(values | fields))


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds, letting other tasks run meanwhile. Raises TimeoutError."""
    async with asyncio.timeout(CONDITION_SECONDS):
        while not condition():  # noqa: ASYNC110 - the condition is a plain value without an event
            await asyncio.sleep(0.001)


class MemoryWebhooks:
    """`gateway.store.webhook.WebhookStore` in a dictionary."""

    def __init__(self, *webhooks: Webhook) -> None:
        self.rows = {webhook.id: webhook for webhook in webhooks}
        self.audit: list[AuditEntry] = []
        self.away = False

    async def add(self, webhook: Webhook, entry: AuditEntry | None = None) -> bool:
        self._answer()
        added = self.rows.setdefault(webhook.id, webhook) is webhook
        self._note(entry if added else None)
        return added

    async def get(self, webhook_id: str) -> Webhook | None:
        self._answer()
        return self.rows.get(webhook_id)

    async def replace(
        self, webhook: Webhook, revision: int, entry: AuditEntry | None = None
    ) -> bool:
        self._answer()
        if webhook.id not in self.rows or self.rows[webhook.id].revision != revision:
            return False
        self._note(entry)
        self.rows[webhook.id] = replace(webhook, revision=revision + 1)
        return True

    async def delete(self, webhook_id: str, entry: AuditEntry | None = None) -> bool:
        self._answer()
        self._note(entry)
        return self.rows.pop(webhook_id, None) is not None

    async def list(self, query: WebhookQuery) -> tuple[Sequence[Webhook], str | None]:
        self._answer()
        found = [row for row in self.rows.values() if query.owner in (None, row.owner)]
        return found[: query.limit], None

    async def candidates(self, owner: str, job_id: str) -> Sequence[Webhook]:
        self._answer()
        return list(self.rows.values())

    async def count(self, owner: str) -> int:
        self._answer()
        return sum(row.owner == owner for row in self.rows.values())

    async def note_outcome(
        self,
        webhook_id: str,
        ok: bool,  # noqa: FBT001
        now: float,
        *,
        exhausted: bool = False,
    ) -> Webhook | None:
        self._answer()
        if (row := self.rows.get(webhook_id)) is None:
            return None
        if ok:
            noted = replace(
                row,
                consecutive_failures=0,
                failing_since=None,
                exhausted_count=0,
                last_success_at=now,
            )
        else:
            noted = replace(
                row,
                consecutive_failures=row.consecutive_failures + 1,
                failing_since=now if row.failing_since is None else row.failing_since,
                exhausted_count=row.exhausted_count + exhausted,
            )
        self.rows[webhook_id] = noted
        return noted

    async def disable(
        self, webhook_id: str, reason: str, now: float, entry: AuditEntry | None = None
    ) -> bool:
        self._answer()
        row = self.rows.get(webhook_id)
        if row is None or row.status is not WebhookStatus.ACTIVE:
            return False
        self._note(entry)
        self.rows[webhook_id] = replace(
            row, status=WebhookStatus.DISABLED, disabled_reason=reason, revision=row.revision + 1
        )
        return True

    async def prune(self, before: float, now: float) -> int:
        raise NotImplementedError

    def _note(self, entry: AuditEntry | None) -> None:
        if entry is not None:
            self.audit.append(entry)

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")


@dataclass
class Entry:
    """A message in `MemoryOutbox`, with what became of it."""

    message: Message
    fence: int = 0
    lease_until: float | None = None
    attempts: list[Attempt] = field(default_factory=list)


class MemoryOutbox:
    """What the dispatcher uses of `gateway.store.outbox.Outbox`, without order between jobs.

    `away` makes every call fail; `settle_faults` the next so many settlements.
    """

    def __init__(self, *messages: Message) -> None:
        self.entries = {message.id: Entry(message) for message in messages}
        self.away = False
        self.settle_faults = 0
        self.claims = 0

    def status(self, message_id: str) -> DeliveryStatus:
        return self.entries[message_id].message.status

    def all_are(self, status: DeliveryStatus) -> bool:
        return all(entry.message.status is status for entry in self.entries.values())

    async def enqueue(self, messages: Sequence[Message]) -> None:
        self._answer()
        for message in messages:
            self.entries.setdefault(message.id, Entry(message))

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
        self._answer()
        self.claims += 1
        due = [
            entry
            for entry in self.entries.values()
            if self._due_at(entry, sink) <= now and entry.message.destination not in busy
        ]
        taken: Counter[str] = Counter()
        chosen: list[Entry] = []
        for entry in due:
            if len(chosen) < limit and taken[entry.message.destination] < share:
                taken[entry.message.destination] += 1
                chosen.append(entry)
        return [self._lease(entry, now + lease_seconds) for entry in chosen]

    async def settle(
        self, claim: Claim[Message], verdict: Verdict, attempt: Attempt, now: float
    ) -> bool:
        self._answer()
        if self.settle_faults:
            self.settle_faults -= 1
            raise StoreUnavailable("the store is away")
        entry = self.entries[claim.item.id]
        if entry.fence != claim.fence:
            return False
        entry.lease_until = None
        entry.attempts.append(attempt)
        match verdict:
            case Delivered():
                entry.message = replace(entry.message, status=DeliveryStatus.SUCCEEDED)
            case RetryAt(at):
                entry.message = replace(entry.message, status=DeliveryStatus.RETRYING, due_at=at)
            case Dead(status):
                entry.message = replace(entry.message, status=status)
        return True

    async def next_due_at(self, sink: str) -> float | None:
        self._answer()
        due = min((self._due_at(entry, sink) for entry in self.entries.values()), default=None)
        return None if due == float("inf") else due

    async def deliveries(self, query: DeliveryQuery) -> tuple[Sequence[Delivery], str | None]:
        raise NotImplementedError

    async def get(self, message_id: str) -> Delivery | None:
        entry = self.entries[message_id]
        return Delivery(entry.message, None, tuple(entry.attempts))

    async def backlog(self) -> Sequence[Backlog]:
        raise NotImplementedError

    async def cancel(self, destination: str, now: float) -> int:
        raise NotImplementedError

    async def drop_payloads(self, before: float) -> int:
        raise NotImplementedError

    async def prune(self, before: float) -> int:
        raise NotImplementedError

    def _due_at(self, entry: Entry, sink: str) -> float:
        if entry.message.sink != sink or entry.message.status.final:
            return float("inf")
        return entry.message.due_at if entry.lease_until is None else entry.lease_until

    def _lease(self, entry: Entry, lease_until: float) -> Claim[Message]:
        entry.fence += 1
        entry.lease_until = lease_until
        attempt = entry.message.attempt + 1
        entry.message = replace(entry.message, status=DeliveryStatus.IN_FLIGHT, attempt=attempt)
        return Claim(entry.message, entry.fence, lease_until)

    def _answer(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")


class ScriptedSink:
    """A sink whose attempts a test decides: `answer` makes the outcome, or waits, or raises."""

    def __init__(
        self,
        answer: Callable[[Message], Any] | None = None,
        *,
        concurrency: int = 64,
        per_destination: int = 4,
        delays_seconds: Sequence[float] = (0.0, 0.0),
        deadline_seconds: float = 10.0,
    ) -> None:
        self.name = "webhook"
        self.concurrency = concurrency
        self.per_destination = per_destination
        self.deadline_seconds = deadline_seconds
        self.delays_seconds = delays_seconds
        self.sent: list[Message] = []
        self.told: list[tuple[Message, Outcome]] = []
        self.open: dict[str, int] = {}
        self.peak_open = 0
        self.peak_of: dict[str, int] = {}
        self._answer = answer

    async def schedule(self, message: Message) -> Schedule:
        return Schedule(self.delays_seconds)

    async def send(self, message: Message) -> Outcome:
        self.sent.append(message)
        destination = message.destination
        self.open[destination] = self.open.get(destination, 0) + 1
        self.peak_open = max(self.peak_open, sum(self.open.values()))
        self.peak_of[destination] = max(self.peak_of.get(destination, 0), self.open[destination])
        try:
            found = self._answer(message) if self._answer is not None else Outcome(0.0)
            if asyncio.iscoroutine(found):
                found = await found
            assert isinstance(found, Outcome)
            return found
        finally:
            self.open[destination] -= 1

    async def settled(self, message: Message, outcome: Outcome) -> None:
        self.told.append((message, outcome))
