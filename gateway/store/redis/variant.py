"""A cached response as Redis holds it: a head that scripts read, then fields, then the body."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from hashlib import blake2b

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.freshness import StoredResponse, Terms

_HEAD = struct.Struct(">16sdI")  # what it varies by, fresh until, length of the rest; as in the Lua
_FIELDS_LENGTH = struct.Struct(">I")
_WORTH_COMPRESSING_BYTES = 1024
_FAST = 1  # zlib's level: a body is compressed once and read often, but on the event loop
_PLAIN, _DEFLATED = 0, 1


def digest(*parts: str) -> bytes:
    """16 bytes that stand for texts of any length; no two lists of texts are alike."""
    text = "\0".join(parts)
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def packed(response: StoredResponse) -> bytes:
    """The variant, its body compressed where that makes it smaller by a tenth at least."""
    form, body = _compressed(response)
    terms = response.terms
    fields = json.dumps(
        [
            response.status,
            form,
            list(response.headers.items()),
            response.vary,
            terms.born_at,
            terms.stale_while_seconds,
            terms.stale_error_seconds,
            terms.validate,
            terms.strict,
            terms.shared,
        ],
        separators=(",", ":"),
    ).encode()
    vary = digest(
        *(f"{name}={'' if value is None else '=' + value}" for name, value in response.vary)
    )
    length = _FIELDS_LENGTH.size + len(fields) + len(body)
    head = _HEAD.pack(vary, terms.fresh_until, length)
    return b"".join((head, _FIELDS_LENGTH.pack(len(fields)), fields, body))


def unpacked(value: bytes) -> Sequence[StoredResponse]:
    """The variants of a key, in their order. Raises ValueError for what is none."""
    found = []
    at = 0
    try:
        while at < len(value):
            _, fresh_until, length = _HEAD.unpack_from(value, at)
            at += _HEAD.size
            if at + length > len(value):
                raise ValueError("not a cached response: it is cut off")
            found.append(_response(value[at : at + length], fresh_until))
            at += length
    except (struct.error, zlib.error, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a cached response: {error}") from error
    return found


def _response(rest: bytes, fresh_until: float) -> StoredResponse:
    (size,) = _FIELDS_LENGTH.unpack_from(rest)
    end = _FIELDS_LENGTH.size + size
    status, form, headers, vary, born_at, *terms = json.loads(rest[_FIELDS_LENGTH.size : end])
    body = rest[end:]
    return StoredResponse(
        status,
        CIMultiDictProxy(CIMultiDict([(name, value) for name, value in headers])),
        zlib.decompress(body) if form == _DEFLATED else body,
        Terms(born_at, fresh_until, *terms),
        tuple((name, value) for name, value in vary),
    )


def _compressed(response: StoredResponse) -> tuple[int, bytes]:
    body = response.body
    if len(body) < _WORTH_COMPRESSING_BYTES or "Content-Encoding" in response.headers:
        return _PLAIN, body
    smaller = zlib.compress(body, _FAST)
    return (_DEFLATED, smaller) if len(smaller) < 0.9 * len(body) else (_PLAIN, body)
