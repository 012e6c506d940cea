"""Requests as the policies see them, a clock that stands still, and predictable tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson
from multidict import CIMultiDict

from gateway.core.credential import Principal
from gateway.core.error import ContentTooLarge
from gateway.core.message import Request
from gateway.core.route import OTHER, Match
from tests.support.store import NOW


class FakeClock:
    """Epoch seconds that pass only when told to."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class FakeToken:
    """Bytes that differ from call to call and are the same in every run."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, size: int) -> bytes:
        self.calls += 1
        return self.calls.to_bytes(size, "big")


PEEKED_BYTES = 16


class FakeBody:
    """A body that is already here; `remembered` plays one that was read before."""

    def __init__(self, content: bytes, *, remembered: bool = False) -> None:
        self._content = content
        self._remembered = remembered

    async def read(self, limit: int) -> bytes:
        if len(self._content) > limit and not self._remembered:
            raise ContentTooLarge(f"more than {limit} bytes")
        return self._content

    async def peek(self) -> bytes:
        return self._content[:PEEKED_BYTES]

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._content

    @property
    def is_empty(self) -> bool:
        return not self._content


def make_request(
    method: str,
    target: str,
    body: object = None,
    *,
    owner: str | None = "alice",
    scopes: Sequence[str] = ("webhooks",),
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    match: Match | None = None,
) -> Request:
    """A request by a key of `owner` (None: without a key); `body` is bytes, or made JSON."""
    path, _, query = target.partition("?")
    content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    fields: CIMultiDict[str] = CIMultiDict(headers)
    if content:
        fields.setdefault("Content-Type", "application/json")
    return Request(
        method=method,
        target=target,
        path=path,
        query=query,
        headers=fields,
        body=FakeBody(content),
        match=match or Match(OTHER),
        client="192.0.2.7",
        scheme="https",
        host="gateway.example",
        received_at=NOW,
        request_id="req-1",
        principal=Principal(f"key-of-{owner}", owner, frozenset(scopes)) if owner else None,
    )


def document(response: Any) -> Any:
    """The JSON of a response."""
    assert isinstance(response.body, bytes)
    return orjson.loads(response.body)
