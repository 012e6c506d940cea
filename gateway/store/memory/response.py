"""Cached responses in this process's memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.core.freshness import StoredResponse

MAX_VARIANTS = 8  # of one key: what `Vary` lets a client multiply


class MemoryResponseStore:
    """Responses of at most `max_bytes`; the key that was used least recently goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._entries: OrderedDict[str, tuple[StoredResponse, ...]] = OrderedDict()
        self._tagged: dict[str, set[str]] = {}

    @property
    def size_bytes(self) -> int:
        """What is kept now."""
        return self._size_bytes

    async def lookup(self, key: str) -> Sequence[StoredResponse]:
        """The stored variants of a key, newest first."""
        variants = self._entries.get(key, ())
        if variants:
            self._entries.move_to_end(key)
        return variants

    async def store(self, key: str, response: StoredResponse) -> None:
        """Keep a variant in place of an equal one; one larger than the bound is not kept."""
        others = [each for each in self._entries.get(key, ()) if each.vary != response.vary]
        self._put(key, (response, *others)[:MAX_VARIANTS])
        while self._size_bytes > self._max_bytes:
            self._put(next(iter(self._entries)), ())

    async def purge(self, tag: str) -> int:
        """Forget every response with this tag; how many there were."""
        return self._change(tag, lambda _: None)

    async def expire(self, tag: str, now: float) -> int:
        """Keep every response with this tag, but as stale from `now` on; how many there are."""
        return self._change(tag, lambda each: replace(each, fresh_until=min(each.fresh_until, now)))

    def _change(self, tag: str, change: Callable[[StoredResponse], StoredResponse | None]) -> int:
        count = 0
        for key in tuple(self._tagged.get(tag, ())):
            variants = []
            for each in self._entries[key]:
                tagged = tag in each.tags
                count += tagged
                changed = change(each) if tagged else each
                if changed is not None:
                    variants.append(changed)
            self._put(key, tuple(variants), used=False)
        return count

    def _put(self, key: str, variants: tuple[StoredResponse, ...], *, used: bool = True) -> None:
        """Replace a key's variants and keep the books: sizes, tags, order of use."""
        for each in self._entries.get(key, ()):
            self._size_bytes -= each.size_bytes + len(key)
            for tag in each.tags:
                keys = self._tagged.get(tag, set())
                keys.discard(key)
                if not keys:
                    self._tagged.pop(tag, None)
        if not variants:
            self._entries.pop(key, None)
            return
        self._entries[key] = variants
        if used:
            self._entries.move_to_end(key)
        for each in variants:
            self._size_bytes += each.size_bytes + len(key)
            for tag in each.tags:
                self._tagged.setdefault(tag, set()).add(key)
