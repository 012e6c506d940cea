"""Where the body of the request under way ends, as its bytes come in."""

from __future__ import annotations

from gateway.core.chunked import ChunkedScanner
from gateway.web.head import Framing, Head


class BodyFraming:
    """Follows one body; `seen` counts its bytes since it was last set to zero."""

    __slots__ = ("_left", "_scanner", "seen")

    def __init__(self, head: Head) -> None:
        self.seen = 0
        self._left = head.length
        self._scanner = ChunkedScanner() if head.framing is Framing.CHUNKED else None

    def take(self, data: bytes) -> int:
        """How many of these bytes are of the body. Raises `InvalidRequest` for bad chunks."""
        if self._scanner is not None:
            size = self._scanner.feed(data)
        else:
            size = min(self._left, len(data))
            self._left -= size
        self.seen += size
        return size

    def is_whole(self) -> bool:
        """True once the last byte was taken."""
        return self._left == 0 if self._scanner is None else self._scanner.is_done
