"""API keys in Redis, shared by every replica; each change is published to them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from gateway.core.credential import Key
from gateway.store.codec import decode_cursor, encode_cursor, key_document, key_from_document
from gateway.store.key import KeyChanges, KeyRecord
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Part
from gateway.store.redis.script import load_script
from gateway.store.redis.subscription import Subscription

CHECK_SECONDS = 1.0  # a message that was missed is made up for after so long at the most
_TAG = "keys"
_BATCH = 1000
_WRITE, _CHANGES = load_script("key_write"), load_script("key_changes")
_PAGE, _USED = load_script("key_page"), load_script("key_used")
_TIME_DIGITS = 20


class RedisKeyStore:
    """`gateway.store.key.KeyStore` over a `RedisClient`.

    A change is written only if the key is as it was read, and tried again when it is not.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self.channel = client.key("keys")
        self._documents = client.key("document", tag=_TAG)
        self._hashes = client.key("hash", tag=_TAG)
        self._changed = client.key("changed", tag=_TAG)
        self._all = client.key("all", tag=_TAG)
        self._generation = client.key("generation", tag=_TAG)
        self._uses = client.key("used", tag=_TAG)

    async def add(self, key: Key) -> bool:
        """Insert; False when its id or its hash is there already."""
        return await self._write((b"", key))

    async def rotate(self, key_id: str, successor: Key, ends_at: float, now: float) -> bool:
        """In one step add the successor, and let the key end at `ends_at` if it does not before.

        False, and nothing written, when the key is not there or has ended at `now`, or the
        successor's id or hash is there already.
        """
        while (document := await self._document(key_id)) is not None:
            before = key_from_document(document)
            if not before.is_active(now):
                break
            ends = min(ends_at, ends_at if before.expires_at is None else before.expires_at)
            if await self._write((document, replace(before, expires_at=ends)), (b"", successor)):
                return True
            if await self._document(key_id) == document:
                break  # it is the successor that cannot be
        return False

    async def revoke(self, key_id: str, now: float) -> bool:
        """End a key at once; False when it is not there or was revoked before."""
        while (document := await self._document(key_id)) is not None:
            before = key_from_document(document)
            if before.revoked_at is not None:
                break
            if await self._write((document, replace(before, revoked_at=now))):
                return True
        return False

    async def get(self, key_id: str) -> KeyRecord | None:
        """One key, whether it has ended or not."""
        document, used = await self._client.commands(
            [("HGET", self._documents, key_id), ("HGET", self._uses, key_id)]
        )
        return None if document is None else _record(document, used)

    async def list(
        self, owner: str | None, cursor: str | None, limit: int
    ) -> tuple[Sequence[KeyRecord], str | None]:
        """A page of an owner's keys (None: of all), oldest first, and the next cursor.

        Raises InvalidRequest for a malformed cursor.
        """
        begin = "-" if cursor is None else f"({_member(*decode_cursor(cursor))}"
        members = self._all if owner is None else self._of(owner)
        reply = await self._client.run(
            _PAGE, [members, self._documents, self._uses], [begin, limit + 1, _TIME_DIGITS + 1]
        )
        found = [_record(*each) for each in zip(reply[::2], reply[1::2], strict=True)]
        page = found[:limit]
        more = len(found) > limit
        return page, encode_cursor(page[-1].key.created_at, page[-1].key.key_id) if more else None

    async def changes(self, after: int) -> KeyChanges:
        """The keys that changed after a generation; all keys after 0."""
        keys: list[Key] = []
        while True:
            generation, last, *documents = await self._client.run(
                _CHANGES, [self._documents, self._changed, self._generation], [after, _BATCH]
            )
            keys += map(key_from_document, documents)
            if len(documents) < _BATCH:
                return KeyChanges(generation, keys)
            after = last

    async def note_used(self, used: Mapping[str, float]) -> None:
        """Remember when keys (by id) were last used; an earlier time changes nothing."""
        items = list(used.items())
        for start in range(0, len(items), _BATCH):
            args: list[Part] = []
            for key_id, at in items[start : start + _BATCH]:
                args += (key_id, repr(at))
            await self._client.run(_USED, [self._uses], args)

    async def watch(self) -> AsyncIterator[None]:
        """Yields at every change that is published, and once a second in case one was missed."""
        news = asyncio.Event()
        subscription = Subscription(self._client, self.channel, lambda _: news.set(), news.set)
        listening = asyncio.create_task(subscription.run())
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        await news.wait()
                news.clear()
                yield
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _document(self, key_id: str) -> bytes | None:
        found: bytes | None = await self._client.command("HGET", self._documents, key_id)
        return found

    async def _write(self, *changes: tuple[bytes, Key]) -> bool:
        """All or none; each is a document as it was read (empty: a new key) and its key to be."""
        keys = [self._documents, self._hashes, self._changed, self._all, self._generation]
        args: list[Part] = [self.channel]
        for read, key in changes:
            keys.append(self._of(key.owner))
            member = _member(key.created_at, key.key_id)
            args += (key.key_id, read, key_document(key), key.sha256, member)
        return bool(await self._client.run(_WRITE, keys, args))

    def _of(self, owner: str) -> bytes:
        return self._client.key("of", owner, tag=_TAG)


def _member(created_at: float, key_id: str) -> str:
    """A key's place in a page: members are in the order of time, then id."""
    return f"{round(created_at * 1e6):0{_TIME_DIGITS}d}:{key_id}"


def _record(document: bytes, used: bytes | None) -> KeyRecord:
    return KeyRecord(key_from_document(document), float(used) if used else None)
