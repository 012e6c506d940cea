"""What the dispatcher asks of a sink."""

from __future__ import annotations

from typing import Protocol

from gateway.core.outbox import Message
from gateway.core.retry import Outcome, Schedule

__all__ = ["Outcome", "Sink"]


class Sink(Protocol):
    """One kind of destination."""

    @property
    def name(self) -> str:
        """What `Message.sink` calls it."""
        ...

    @property
    def concurrency(self) -> int:
        """How many messages may be in flight over all destinations."""
        ...

    @property
    def per_destination(self) -> int:
        """How many messages may be in flight to one destination."""
        ...

    @property
    def deadline_seconds(self) -> float:
        """The longest one attempt can take; a lease outlasts it by 15 s."""
        ...

    async def schedule(self, message: Message) -> Schedule:
        """The retry schedule of a message."""
        ...

    async def send(self, message: Message) -> Outcome:
        """Make one attempt; every failure is an outcome, not an exception."""
        ...

    async def settled(self, message: Message, outcome: Outcome) -> None:
        """Hear of a settled attempt; `message.status` is what it became by it.

        A webhook counts its failures, and is disabled by a 410 or when it counts as dead.
        """
        ...
