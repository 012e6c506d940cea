"""What the gateway asks of a store of idempotency keys; errors are as of `gateway.store`."""

from __future__ import annotations

from typing import Protocol

from gateway.core.idempotency import Entry, Reservation, StoredAnswer


class IdempotencyStore(Protocol):
    """Idempotency keys, each within its scope."""

    async def begin(self, wanted: Reservation, now: float) -> Entry | None:
        """Reserve the key, durably: None when it is now the caller's, else what is known of it.

        A key whose entry has expired is free.
        """
        ...

    async def finish(self, held: Reservation, answer: StoredAnswer) -> bool:
        """Store the answer; False when the reservation is not there any more."""
        ...

    async def free(self, held: Reservation) -> bool:
        """Forget the reservation; False when it is not there any more."""
        ...

    async def interrupt(self, held: Reservation) -> bool:
        """End its lease: how the request ended is not known. False when it is not there."""
        ...

    async def prune(self, now: float) -> int:
        """Delete what has expired; how many."""
        ...
