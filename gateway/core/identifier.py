"""Sortable identifiers: ULIDs made of a time and given or derived bits."""

from __future__ import annotations

import hashlib

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(at: float, entropy: bytes) -> str:
    """A ULID: 48 bits of milliseconds, 80 bits of `entropy` (10 bytes), Crockford base 32."""
    if len(entropy) != 10:
        raise ValueError("a ULID takes 10 bytes of entropy")
    number = ((int(at * 1000) & (2**48 - 1)) << 80) | int.from_bytes(entropy, "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))


def derived(prefix: str, at: float, *parts: object) -> str:
    """`prefix` and a ULID whose bits come from `parts`: made again, it is the same identifier."""
    text = "\x1f".join(str(part) for part in parts)
    return prefix + ulid(at, hashlib.sha256(text.encode()).digest()[:10])
