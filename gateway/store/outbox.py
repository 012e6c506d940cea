"""What the gateway asks of a store of messages and deliveries; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.outbox import Attempt, Backlog, Claim, Delivery, DeliveryStatus, Message
from gateway.core.retry import Verdict


@dataclass(frozen=True, slots=True)
class DeliveryQuery:
    """Which deliveries a log page shows, newest first; None means any. `cursor` is opaque."""

    destination: str
    status: DeliveryStatus | None = None
    kind: str | None = None
    job_id: str | None = None
    cursor: str | None = None
    limit: int = 50


class Outbox(Protocol):
    """Messages waiting to be delivered, and the log of deliveries."""

    async def enqueue(self, messages: Sequence[Message]) -> None:
        """Add messages that belong to no job change; an id already there is left as it is."""
        ...

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
        """Claim due messages of a sink, oldest first, keeping the order rules of `Message`.

        At most `share` are of one destination; those in `busy` are passed over. A message whose
        lease ran out is due again: the claim counts as an attempt made when it was handed out, so
        `item.attempt` is the number (from 1) of the attempt now to be made.
        """
        ...

    async def settle(
        self, claim: Claim[Message], verdict: Verdict, attempt: Attempt, now: float
    ) -> bool:
        """Record an attempt and its verdict; False, and nothing written, if the lease was lost.

        Whatever ends a delivery to a webhook (here, `cancel`, or a later message that supersedes
        it) adds its line to the `AuditLog`, in the same transaction.
        """
        ...

    async def next_due_at(self, sink: str) -> float | None:
        """When the earliest waiting message is due (a lease's end counts)."""
        ...

    async def deliveries(self, query: DeliveryQuery) -> tuple[Sequence[Delivery], str | None]:
        """A page of the delivery log with attempts, and the next page's cursor."""
        ...

    async def get(self, message_id: str) -> Delivery | None:
        """One delivery with its attempts."""
        ...

    async def backlog(self) -> Sequence[Backlog]:
        """What waits, a line each sink."""
        ...

    async def cancel(self, destination: str, now: float) -> int:
        """Mark everything waiting for a destination cancelled (it was deleted); how many."""
        ...

    async def drop_payloads(self, before: float) -> int:
        """Forget the bodies of deliveries that finished before; how many. Their log stays."""
        ...

    async def prune(self, before: float) -> int:
        """Delete ended deliveries and their attempts that finished before; how many."""
        ...
