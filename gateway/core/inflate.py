"""Compressed bodies made plain, within a bound that no bomb gets past."""

from __future__ import annotations

import zlib

GZIP_CODINGS = frozenset({"gzip", "x-gzip"})  # RFC 9110 section 8.4.1.3: the same
_ANY_HEADER = 32 + zlib.MAX_WBITS
_PIECE_BYTES = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"


class InflateFault(ValueError):
    """Bytes that are not what their coding says."""


class Inflated(ValueError):
    """The bytes become more than is allowed."""


def gunzip(body: bytes, limit: int) -> bytes:
    """The plain bytes of a gzip body, of all its members (RFC 1952 section 2.2).

    Raises `Inflated` once more than `limit` bytes have come out, having made no more than that, and
    `InflateFault` for bytes that are cut short or no gzip.
    """
    pieces: list[bytes] = []
    size = 0
    rest = body
    while rest:
        if not rest.startswith(_GZIP_MAGIC):
            raise InflateFault("is not gzip")
        member = zlib.decompressobj(_ANY_HEADER)
        while not member.eof:
            try:
                piece = member.decompress(rest, _PIECE_BYTES)
            except zlib.error as error:
                raise InflateFault("is broken gzip") from error
            rest = member.unconsumed_tail
            if not piece and not rest and not member.eof:
                raise InflateFault("is gzip cut short")
            size += len(piece)
            if size > limit:
                raise Inflated(f"becomes more than {limit} bytes")
            pieces.append(piece)
        rest = member.unused_data
    return b"".join(pieces)
