"""What waits to be delivered: messages, claims on them, and what became of each attempt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    IN_FLIGHT = "in_flight"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    EXHAUSTED = "exhausted"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    BLOCKED = "blocked"
    SKIPPED = "skipped"

    @property
    def waiting(self) -> bool:
        """True while an attempt is still to come and none is under way."""
        return self in (DeliveryStatus.PENDING, DeliveryStatus.RETRYING)

    @property
    def final(self) -> bool:
        """True when no attempt will follow."""
        return not self.waiting and self is not DeliveryStatus.IN_FLIGHT


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery to one destination; `id` (`dlv_…`) and `body` are the same over all attempts.

    `sink` names the kind of destination (`webhook`, `convex`), `destination` which one (a webhook's
    id, `convex`), `kind` what is said (an event type, or a Convex operation). Messages of one
    `(destination, job_id)` are ordered by `sequence`: a later one waits until an earlier one has
    been tried once or, with `strict_order`, has ended. A `replaceable` message still waiting is
    superseded by a later one of the same pair that `supersedes`. Times are epoch seconds; `attempt`
    counts the attempts made so far.
    """

    id: str
    sink: str
    destination: str
    kind: str
    event_id: str
    job_id: str
    sequence: int
    body: bytes
    created_at: float
    due_at: float
    replaceable: bool = False
    supersedes: bool = False
    strict_order: bool = False
    attempt: int = 0
    status: DeliveryStatus = DeliveryStatus.PENDING
    request_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    def again(self, message_id: str, now: float) -> Message:
        """The same said once more, due now: a message of its own, which nothing supersedes."""
        return replace(
            self,
            id=message_id,
            created_at=now,
            due_at=now,
            replaceable=False,
            supersedes=False,
            attempt=0,
            status=DeliveryStatus.PENDING,
        )


@dataclass(frozen=True, slots=True)
class Claim(Generic[T]):
    """The right to work on `item` until `lease_until` (epoch seconds).

    `fence` rises with every claim: whoever holds an older one can change nothing any more.
    """

    item: T
    fence: int
    lease_until: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of the delivery log. `number` starts at 1."""

    message_id: str
    number: int
    started_at: float
    duration_seconds: float
    status_code: int | None = None
    error_kind: str | None = None
    detail: str = ""
    response_excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as the delivery log shows it, without its body."""

    message: Message
    finished_at: float | None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for one sink. `oldest_at` is the creation time (epoch seconds) of its oldest."""

    sink: str
    waiting: int
    in_flight: int
    oldest_at: float | None
