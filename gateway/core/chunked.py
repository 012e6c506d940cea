"""Where a chunked body ends (RFC 9112 section 7.1), read without mercy.

Chunk extensions and trailers are legal and nobody uses them but to smuggle requests past parsers
that disagree on them: a body with either is refused.
"""

from __future__ import annotations

from enum import Enum, auto

from gateway.core.error import InvalidRequest

_HEX = frozenset(b"0123456789abcdefABCDEF")
_MAX_DIGITS = 15
_CR, _LF = 0x0D, 0x0A


class _At(Enum):
    SIZE = auto()
    SIZE_LF = auto()
    DATA = auto()
    DATA_CR = auto()
    DATA_LF = auto()
    END_CR = auto()
    END_LF = auto()
    DONE = auto()


class ChunkedScanner:
    """Follows a chunked body as it comes, however it is cut up."""

    def __init__(self) -> None:
        self._at = _At.SIZE
        self._digits = bytearray()
        self._left = 0

    @property
    def is_done(self) -> bool:
        """True once the last chunk and the empty line after it have been seen."""
        return self._at is _At.DONE

    def feed(self, data: bytes) -> int:
        """How many of these bytes belong to the body. Raises `InvalidRequest` for bad framing."""
        at = 0
        while at < len(data) and self._at is not _At.DONE:
            if self._at is _At.DATA:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                if self._left == 0:
                    self._at = _At.DATA_CR
            else:
                self._step(data[at])
                at += 1
        return at

    def _step(self, byte: int) -> None:
        state = self._at
        if state is _At.SIZE:
            self._read_size(byte)
        elif state is _At.SIZE_LF:
            _expect(byte, _LF)
            self._left = int(self._digits, 16)
            self._digits.clear()
            self._at = _At.DATA if self._left else _At.END_CR
        else:
            wanted, then = _LINE_ENDS[state]
            _expect(byte, wanted)
            self._at = then

    def _read_size(self, byte: int) -> None:
        if byte in _HEX and len(self._digits) < _MAX_DIGITS:
            self._digits.append(byte)
        elif byte == _CR and self._digits:
            self._at = _At.SIZE_LF
        else:
            raise InvalidRequest(
                "The body's chunks are malformed: a size in hexadecimal digits, nothing after it."
            )


_LINE_ENDS = {
    _At.DATA_CR: (_CR, _At.DATA_LF),
    _At.DATA_LF: (_LF, _At.SIZE),
    _At.END_CR: (_CR, _At.END_LF),
    _At.END_LF: (_LF, _At.DONE),
}


def _expect(byte: int, wanted: int) -> None:
    if byte != wanted:
        raise InvalidRequest(
            "The body's chunks are malformed: each ends with CR LF, and no trailer follows."
        )
