"""Where WebSocket frames end (RFC 6455 section 5.2): all that a tunnel must know of them.

A control frame may stand between any two frames, those of one fragmented message included.
"""

from __future__ import annotations

GOING_AWAY = b"\x88\x02\x03\xe9"  # a server's Close with status 1001 (sections 5.5.1 and 7.4.1)


class FrameTracker:
    """Follows one direction of a WebSocket, however its bytes are cut up."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0

    def is_between_frames(self) -> bool:
        """True when the next byte begins a frame."""
        return not self._head and self._left == 0

    def feed(self, data: bytes) -> None:
        """Follow these bytes."""
        at = 0
        while at < len(data):
            at += self.finish_frame(data[at:] if at else data)

    def finish_frame(self, data: bytes) -> int:
        """Follow these bytes to the end of the first frame that ends among them; how many."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
            else:
                self._head.append(data[at])
                at += 1
                if len(self._head) < _head_size(self._head):
                    continue
                self._left = _payload_size(self._head)
                self._head.clear()
            if self.is_between_frames():
                break
        return at


def _head_size(head: bytearray) -> int:
    """How long a frame's head is, as far as it is known."""
    if len(head) < 2:
        return 2
    extended = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    masked = 4 if head[1] & 0x80 else 0
    return 2 + extended + masked


def _payload_size(head: bytearray) -> int:
    short = head[1] & 0x7F
    if short == 126:
        return int.from_bytes(head[2:4])
    if short == 127:
        return int.from_bytes(head[2:10])
    return short
