"""What the gateway asks of a store of cached responses; errors are as of `gateway.store`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.core.freshness import StoredResponse


class Held(Protocol):
    """A key's stored variants, newest first.

    Whatever is stored or forgotten in their place gives it other `variants`.
    """

    @property
    def variants(self) -> Sequence[StoredResponse]:
        """The same object for as long as nothing has changed."""
        ...

    def found(self) -> None:
        """Count that it was looked up, and was there."""
        ...


class ResponseStore(Protocol):
    """Cached responses.

    Each has one tag, by which it is purged; its key is told apart within that tag, and its variant
    (`vary`) within the key.
    """

    def peek(self, tag: str, key: str) -> Sequence[StoredResponse] | None:
        """What `lookup` would find, where that is known without waiting; None where it is not."""
        ...

    def held(self, tag: str, key: str) -> Held | None:
        """What `peek` finds, to be looked at again and again; None for what must be waited for."""
        ...

    async def lookup(self, tag: str, key: str) -> Sequence[StoredResponse]:
        """The stored variants of a key, newest first."""
        ...

    async def store(self, tag: str, key: str, response: StoredResponse) -> None:
        """Keep a variant; others may be evicted to stay within the bound."""
        ...

    async def purge(self, tag: str) -> int:
        """Forget every response with this tag; how many there were."""
        ...

    async def expire(self, tag: str, now: float) -> int:
        """Keep every response with this tag, but as stale from `now` on; how many there are."""
        ...
