"""Idempotency keys in Redis: a hash each, which the server forgets by itself."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import orjson

from gateway.core.idempotency import Entry, Reservation, StoredAnswer
from gateway.store.redis.client import RedisClient
from gateway.store.redis.connection import Part
from gateway.store.redis.script import load_script

_BEGIN, _SETTLE = load_script("idempotency_begin"), load_script("idempotency_settle")

_TEXTS = ("scope", "key", "fingerprint", "token", "request_id")
_TIMES = ("started_at", "lease_until", "expires_at")


class RedisIdempotencyStore:
    """`gateway.store.idempotency.IdempotencyStore` over a `RedisClient`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def begin(self, wanted: Reservation, now: float) -> Entry | None:
        """Reserve the key: None when it is now the caller's, else what is known of it."""
        kept_milliseconds = max(1, math.ceil((wanted.expires_at - now) * 1000))
        fields: list[Part] = [repr(now), kept_milliseconds]
        for name, value in (
            ("scope", wanted.scope),
            ("key", wanted.key),
            ("fingerprint", wanted.fingerprint),
            ("token", wanted.token),
            ("request_id", wanted.request_id),
            ("started_at", repr(wanted.started_at)),
            ("lease_until", repr(wanted.lease_until)),
            ("expires_at", repr(wanted.expires_at)),
        ):
            fields += (name, value)
        reply = await self._client.run(_BEGIN, [self._place(wanted)], fields)
        return None if reply is None else _entry(reply)

    async def finish(self, held: Reservation, answer: StoredAnswer) -> bool:
        """Store the answer; False when the reservation is not there any more."""
        return await self._settle(
            held,
            "status",
            answer.status,
            "headers",
            orjson.dumps(answer.headers),
            "body",
            answer.body,
        )

    async def free(self, held: Reservation) -> bool:
        """Forget the reservation; False when it is not there any more."""
        return await self._settle(held)

    async def interrupt(self, held: Reservation) -> bool:
        """End its lease: how the request ended is not known. False when it is not there."""
        return await self._settle(held, "lease_until", 0)

    async def prune(self, now: float) -> int:  # noqa: ARG002 - the protocol's argument
        """Nothing: the server forgets what has expired."""
        return 0

    async def _settle(self, held: Reservation, *fields: Part) -> bool:
        args = [held.token, *fields]
        return bool(await self._client.run(_SETTLE, [self._place(held)], args))

    def _place(self, reservation: Reservation) -> bytes:
        """By a digest: keys are clients' text."""
        text = orjson.dumps([reservation.scope, reservation.key])
        return self._client.key("idempotency", hashlib.sha256(text).hexdigest())


def _entry(reply: list[bytes]) -> Entry:
    found: dict[str, Any] = {
        name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)
    }
    texts: dict[str, Any] = {name: found[name].decode() for name in _TEXTS}
    times: dict[str, Any] = {name: float(found[name]) for name in _TIMES}
    reservation = Reservation(**texts, **times)
    if "status" not in found:
        return Entry(reservation)
    headers = tuple((name, value) for name, value in orjson.loads(found["headers"]))
    return Entry(reservation, StoredAnswer(int(found["status"]), headers, found["body"]))
