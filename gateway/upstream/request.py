"""A request's head and body as HTTP/1.1 bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from multidict import CIMultiDict

LAST_CHUNK = b"0\r\n\r\n"


class Sender(Protocol):
    """Where a body goes."""

    def write(self, data: bytes) -> None:
        """Send, or buffer."""
        ...

    async def drained(self) -> None:
        """Until the other side takes more."""
        ...


def encode_head(method: str, target: str, headers: CIMultiDict[str], authority: str) -> bytes:
    """A request's head, fields as given and in their order; `Host` where there is none.

    Raises ValueError for a line break or NUL within a line: it would be two lines, or another.
    """
    lines = [f"{method} {target} HTTP/1.1"]
    if "Host" not in headers:
        lines.append(f"Host: {authority}")
    for name, value in headers.items():
        lines.append(f"{name}: {value}")
    text = "\r\n".join(lines)
    breaks = len(lines) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        raise ValueError("a line of the request's head holds a line break or NUL")
    return (text + "\r\n\r\n").encode("utf-8", "surrogateescape")


async def send_body(sender: Sender, body: AsyncIterator[bytes], length: int | None) -> None:
    """Send a body as it comes: in chunks, or of the announced `length` in bytes.

    Raises ValueError when it is longer or shorter than that, and whatever `body` raises.
    """
    size = 0
    async for data in body:
        if not data:  # an empty chunk would be the last
            continue
        size += len(data)
        if length is None:
            sender.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif size > length:
            raise ValueError(f"the body is longer than the {length} bytes that were announced")
        else:
            sender.write(data)
        await sender.drained()
    if length is None:
        sender.write(LAST_CHUNK)
    elif size < length:
        raise ValueError(f"the body ends after {size} of the {length} bytes that were announced")
