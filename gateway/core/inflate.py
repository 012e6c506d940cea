"""Compressed bodies made plain, within a bound that no bomb gets past."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_GZIP = 16 + zlib.MAX_WBITS
_MAX_WINDOW_LOG = 23  # RFC 9659 section 3: a decoder of this coding need not take more than 8 MiB
_PIECE_BYTES = 64 * 1024
_CHUNK_BYTES = 16 * 1024
_MAX_MEMBERS = 1024  # each costs a decompressor; honest bodies have one, or one for every 64 KiB


class InflateFault(ValueError):
    """Bytes that are not what their coding says."""


class Inflated(ValueError):
    """The bytes become more than is allowed."""


class _Member(Protocol):
    """What makes one gzip member or zstd frame plain."""

    @property
    def ended(self) -> bool:
        """True once it is whole."""
        ...

    def feed(self, chunk: memoryview) -> tuple[bytes, int]:
        """The next piece, at most `_PIECE_BYTES`, and how much of the chunk was taken for it.

        Raises InflateFault for what is none.
        """
        ...


def inflate(coding: str, body: bytes, limit: int) -> bytes:
    """The plain bytes of a body in one of `CODINGS`: of all its gzip members or zstd frames.

    Raises `Inflated` once more than `limit` bytes have come out, having made hardly more than that,
    and `InflateFault` for bytes that are cut short, or not what `coding` says.
    """
    view, at, size = memoryview(body), 0, 0
    pieces: list[bytes] = []
    for _ in range(_MAX_MEMBERS):
        if at == len(view):
            return b"".join(pieces)
        member = CODINGS[coding]()
        while not member.ended:
            piece, taken = member.feed(view[at : at + _CHUNK_BYTES])
            at += taken
            if not piece and not taken and not member.ended:
                raise InflateFault(f"is {coding} cut short")
            size += len(piece)
            if size > limit:
                raise Inflated(f"becomes more than {limit} bytes")
            pieces.append(piece)
    raise InflateFault(f"has more than {_MAX_MEMBERS} parts of {coding}")


class _GzipMember:
    """RFC 1952 section 2.2."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)

    @property
    def ended(self) -> bool:
        return self._member.eof

    def feed(self, chunk: memoryview) -> tuple[bytes, int]:
        try:
            piece = self._member.decompress(chunk, _PIECE_BYTES)
        except zlib.error as error:
            raise InflateFault("is broken gzip, or none") from error
        left = len(self._member.unconsumed_tail) + len(self._member.unused_data)
        return piece, len(chunk) - left


class _ZstdFrame:
    """RFC 8878 section 3.1."""

    def __init__(self) -> None:
        bound: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
        self._frame = zstd.ZstdDecompressor(options=bound)

    @property
    def ended(self) -> bool:
        return self._frame.eof

    def feed(self, chunk: memoryview) -> tuple[bytes, int]:
        # It keeps what it has not come to yet, and takes nothing more before that.
        taken = chunk if self._frame.needs_input else chunk[:0]
        try:
            piece = self._frame.decompress(taken, _PIECE_BYTES)
        except zstd.ZstdError as error:
            raise InflateFault("is broken zstd, or none") from error
        return piece, len(taken) - len(self._frame.unused_data)


# By their names in RFC 9110 section 8.4.1 and RFC 8878 section 7.2.
CODINGS: dict[str, Callable[[], _Member]] = {
    "gzip": _GzipMember,
    "x-gzip": _GzipMember,
    "zstd": _ZstdFrame,
}
