"""Streams kept while they pass: the client gets each piece at once, the cache all of them later."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

from gateway.core.message import BodyStream


def collected(
    body: BodyStream,
    max_bytes: int,
    keep: Callable[[bytes], Awaitable[None]],
    release: Callable[[], None],
) -> BodyStream:
    """The same stream; `keep` is given the whole once it is complete and within `max_bytes`.

    What is longer, breaks off or is not read to its end is not kept. `release` runs when the stream
    is closed, in any case.
    """

    async def pieces() -> AsyncGenerator[bytes, None]:
        parts: list[bytes] = []
        size = 0
        try:
            async for chunk in body:
                size += len(chunk)
                if size <= max_bytes:
                    parts.append(chunk)
                else:
                    parts.clear()
                yield chunk
            if size <= max_bytes:
                await keep(b"".join(parts))
        finally:
            await body.aclose()

    # The closers must run although the pieces were never asked for.
    closers = [*body.closers, release]
    body.closers.clear()
    return BodyStream(pieces(), *closers)
