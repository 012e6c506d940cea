"""A socket pair between parent and worker: either side sees at once that the other is gone.

A worker writes `ready` on it once it serves, and at its end what its metrics then said. The parent
writes nothing: that the stream ends is its message, and it comes after a kill -9 too.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable

READY = b"ready\n"
_SEND_SECONDS = 2  # a parent that stands still must not keep a worker from ending
_ABANDONED = 1


class Lifeline:
    """The worker's end, an inherited descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        timeout = struct.pack("ll", _SEND_SECONDS, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._left = threading.Event()

    def watch(self, gone: Callable[[], object], grace_seconds: float) -> None:
        """Have `gone` called, in a thread of its own, once the parent is.

        A process that is still there `grace_seconds` later, its event loop blocked perhaps, is
        ended: no worker outlives its parent for long.
        """
        arguments = (gone, grace_seconds)
        threading.Thread(target=self._wait, args=arguments, name="lifeline", daemon=True).start()

    def tell_ready(self) -> None:
        """Say that this worker serves."""
        self._send(READY)

    def leave(self, exposition: bytes) -> None:
        """Say what the metrics were at the end; the parent sees the end itself too."""
        self._left.set()
        self._send(exposition)
        self._socket.close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:  # the parent is gone: the thread below knows
            return

    def _wait(self, gone: Callable[[], object], grace_seconds: float) -> None:
        try:
            while self._socket.recv(1):
                pass
        except OSError:  # reset, or closed by `leave`
            pass
        if self._left.is_set():
            return
        gone()
        if not self._left.wait(grace_seconds):
            os._exit(_ABANDONED)
