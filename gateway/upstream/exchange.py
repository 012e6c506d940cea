"""A response of the upstream under way, and the tunnel that an upgrade turns it into."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Protocol, Self

from multidict import CIMultiDict

from gateway.core.error import ContentTooLarge
from gateway.upstream.flow import Inflow


class Wire(Protocol):
    """The connection beneath, as an exchange and a tunnel use it."""

    def write(self, data: bytes) -> None:
        """Send, or buffer."""
        ...

    async def drained(self) -> None:
        """Until the other side takes more."""
        ...

    def write_eof(self) -> None:
        """Say that nothing more will be sent."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Tunnel:
    """Raw bytes both ways, after a 101 (RFC 9110 section 7.8).

    `read` gives what the upstream sends as it comes, empty bytes at its end, and raises
    `UpstreamReset` when the connection breaks or `UpstreamTimeout` when it was silent both ways for
    longer than `idle_timeout`. Reading is held back by not calling `read`; `write` is followed by
    `await drain()`. `write_eof` closes one direction. `close` must be called at the end.
    """

    def __init__(self, wire: Wire, inflow: Inflow) -> None:
        self._wire = wire
        self._inflow = inflow

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        return await self._inflow.next()

    def write(self, data: bytes) -> None:
        """Send bytes; after the connection was lost they go nowhere, and `read` says so."""
        self._wire.write(data)

    async def drain(self) -> None:
        """Until the upstream takes more."""
        await self._wire.drained()

    def write_eof(self) -> None:
        """Say that nothing more will be sent; what the upstream sends is still read."""
        self._wire.write_eof()

    def close(self) -> None:
        """Close both directions."""
        self._wire.abort()


class Exchange:
    """One response under way: its head is here, its body comes by `chunks()`.

    Must be closed. Its connection goes back to the pool by itself once the whole response is in;
    closing before that closes the connection, for what is left of it would be taken for the next.
    """

    def __init__(self, wire: Wire, inflow: Inflow) -> None:
        self._wire = wire
        self._inflow = inflow
        self.status = 0
        self.reason = ""
        self.headers: CIMultiDict[str] = CIMultiDict()

    async def begun(self) -> None:
        """Until the head is in. Raises `UpstreamError`, or what ended the request's body."""
        while not self.status:
            await self._inflow.changed()

    @property
    def streams_events(self) -> bool:
        """True for a stream of server-sent events by its type."""
        kind = self.headers.get("Content-Type", "")
        return kind.partition(";")[0].strip().lower() == "text/event-stream"

    @property
    def complete(self) -> bytes | None:
        """The whole body when all of it has arrived and none was read yet; else None."""
        inflow = self._inflow
        if not inflow.has_ended:
            return None
        parts = inflow.parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives. Raises `UpstreamError` when it breaks off."""
        while data := await self._inflow.next():
            yield data

    async def read(self, limit: int) -> bytes:
        """The whole body; raises `ContentTooLarge` beyond `limit` bytes."""
        parts, size = [], 0
        while data := await self._inflow.next():
            size += len(data)
            if size > limit:
                raise ContentTooLarge(f"The upstream's answer exceeds {limit} bytes.")
            parts.append(data)
        return b"".join(parts)

    def tunnel(self) -> Tunnel:
        """Both directions, raw, of a response with status 101; `close` the tunnel, not this."""
        if self.status != 101:
            raise RuntimeError("only a 101 becomes a tunnel")
        return Tunnel(self._wire, self._inflow)

    def close(self) -> None:
        """Give up what has not arrived; harmless at the end, and twice."""
        if not self._inflow.has_ended:
            self._wire.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
