"""Byte ranges of a whole body (RFC 9110 section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(
    r"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` up to, not including, `end`; empty when none of the wanted ones exist."""

    start: int
    end: int

    @property
    def is_satisfiable(self) -> bool:
        """False for a 416 (section 15.5.17)."""
        return self.start < self.end

    def content_range(self, length: int) -> str:
        """The value of `Content-Range` for a body of `length` bytes (section 14.4)."""
        if not self.is_satisfiable:
            return f"bytes */{length}"
        return f"bytes {self.start}-{self.end - 1}/{length}"


def byte_range(wanted: str, length: int) -> ByteRange | None:
    """The one range of a `Range` field; None when the field is to be ignored (section 14.2).

    Several ranges, other units and what cannot be read are ignored: the whole body is an answer.
    """
    found = _ONE_RANGE.fullmatch(wanted)
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        return ByteRange(max(0, length - int(suffix)), length) if int(suffix) else ByteRange(0, 0)
    start = int(first)
    if last and int(last) < start:
        return None
    end = min(int(last) + 1, length) if last else length
    return ByteRange(start, end) if start < length else ByteRange(0, 0)
