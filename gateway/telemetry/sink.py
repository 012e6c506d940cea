"""Where log lines go without anybody waiting for it: a thread writes them, in order, in batches."""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from typing import Protocol

GATHER_SECONDS = 0.02  # how long a line may wait for company; a kill -9 loses no more than that
MAX_WAITING_BYTES = 8 * 1024**2


class Stream(Protocol):
    """What takes text: standard output, or a test's buffer."""

    def write(self, text: str, /) -> object:
        """Take text."""
        ...

    def flush(self) -> None:
        """Pass on what was taken."""
        ...

    def isatty(self) -> bool:
        """True for a terminal."""
        ...


class SharedStream:
    """A descriptor that several processes write to: no line of one breaks into another's.

    A pipe takes as much as PIPE_BUF in one piece; a longer line may not come in one.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str, /) -> None:
        """Write whole lines, as many at a time as go in one piece. Raises OSError."""
        piece = b""
        for line in text.encode().splitlines(keepends=True):
            if len(piece) + len(line) > select.PIPE_BUF:
                self._write(piece)
                piece = b""
            piece += line
        self._write(piece)

    def flush(self) -> None:
        """Nothing: what was written is out."""

    def isatty(self) -> bool:
        """True for a terminal."""
        return os.isatty(self._descriptor)

    def _write(self, piece: bytes) -> None:
        while piece:
            piece = piece[os.write(self._descriptor, piece) :]


class BackgroundStream:
    """Takes lines at once, and writes them to `stream` in a thread of its own.

    A reader that stands still (a full pipe, a disk) thus holds nobody up. Once `MAX_WAITING_BYTES`
    wait for it, further lines are dropped; `dropped` counts them, and those whose write failed.
    Ended by `close`, at the latest at exit.
    """

    def __init__(self, stream: Stream) -> None:
        self._dropped = 0
        self._stream = stream
        self._waiting: list[str] = []
        self._size = 0
        self._writing_since: float | None = None
        self._is_awake = False
        self._is_closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, text: str, /) -> None:
        """Take whole lines; raises OSError when too many wait, or after `close`."""
        if self._size + len(text) > MAX_WAITING_BYTES or self._is_closing:
            self._dropped += 1
            raise BlockingIOError("the log's reader stands still")
        # One thread writes here and one takes away; each step is atomic by itself, and a size that
        # is a line too large or small for a moment bounds the memory all the same.
        self._size += len(text)
        self._waiting.append(text)
        if not self._is_awake:
            self._is_awake = True
            self._wake.set()

    def flush(self) -> None:
        """Nothing: the thread does, a moment later."""

    @property
    def dropped(self) -> int:
        """Lines that never reached the reader."""
        return self._dropped

    @property
    def waiting_bytes(self) -> int:
        """What waits for the reader, that being written left out."""
        return self._size

    def stalled_seconds(self) -> float:
        """How long the write under way has taken; 0 between writes."""
        since = self._writing_since
        return 0.0 if since is None else time.monotonic() - since

    def isatty(self) -> bool:
        """As the stream beneath."""
        return self._stream.isatty()

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what waits, for no longer than this; harmless when closed already."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(timeout_seconds)
        atexit.unregister(self.close)

    def _run(self) -> None:
        while not self._is_closing or self._waiting:
            self._wake.wait()
            if not self._is_closing:
                time.sleep(GATHER_SECONDS)
            self._wake.clear()
            self._is_awake = False
            self._write_waiting()

    def _write_waiting(self) -> None:
        lines, self._waiting = self._waiting, []
        text = "".join(lines)
        self._size = max(0, self._size - len(text))
        self._writing_since = time.monotonic()
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # its reader is gone, or it was closed
            self._dropped += len(lines)
        finally:
            self._writing_since = None
