"""What the gateway asks of a store of API keys; every backend passes the same contract suite.

A store counts its changes: each raises its generation by one and marks the keys it concerns, so
that whoever holds a copy asks for what changed since, not for everything. Errors are as of
`gateway.store`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.core.credential import Key


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """The keys that changed after some generation, and the generation that they lead to."""

    generation: int
    keys: Sequence[Key]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key, and when it was last used (epoch seconds; None: never, as far as is known)."""

    key: Key
    last_used_at: float | None = None


class KeyStore(Protocol):
    """API keys, by their hashes."""

    async def add(self, key: Key) -> bool:
        """Insert; False when its id or its hash is there already."""
        ...

    async def rotate(self, key_id: str, successor: Key, ends_at: float, now: float) -> bool:
        """In one step add the successor, and let the key end at `ends_at` if it does not before.

        False, and nothing written, when the key is not there or has ended at `now`, or the
        successor's id or hash is there already.
        """
        ...

    async def revoke(self, key_id: str, now: float) -> bool:
        """End a key at once; False when it is not there or was revoked before."""
        ...

    async def get(self, key_id: str) -> KeyRecord | None:
        """One key, whether it has ended or not."""
        ...

    async def list(
        self, owner: str | None, cursor: str | None, limit: int
    ) -> tuple[Sequence[KeyRecord], str | None]:
        """A page of an owner's keys (None: of all), oldest first, and the next cursor."""
        ...

    async def changes(self, after: int) -> KeyChanges:
        """The keys that changed after a generation; all keys after 0.

        A generation lower than `after` says that the store was set back: then none of what was
        known holds, and all must be asked for.
        """
        ...

    async def note_used(self, used: Mapping[str, float]) -> None:
        """Remember when keys (by id) were last used; an earlier time changes nothing."""
        ...

    def watch(self) -> AsyncIterator[None]:
        """Yields whenever another process may have changed keys; ends when none can."""
        ...
