"""A progress bar on a terminal; elsewhere one line at the end, so that logs stay readable."""

from __future__ import annotations

from typing import TextIO

_CELLS = 30


class ProgressBar:
    """One piece of work named `label`; `stream` is where it is drawn."""

    def __init__(self, label: str, stream: TextIO) -> None:
        self._label = label
        self._stream = stream
        self._live = stream.isatty()

    def show(self, done: int, total: int, note: str = "", *, ended: bool = False) -> None:
        """Draw `done` of `total`; a total that was counted too early counts as reached."""
        total = max(total, done)
        share = 1.0 if total == 0 else done / total
        filled = int(share * _CELLS)
        bar = "█" * filled + "░" * (_CELLS - filled)
        line = f"{self._label}  {bar} {share:4.0%}  {done:,} of {total:,} documents{note}"
        if self._live:
            self._stream.write(f"\r\x1b[K{line}" + ("\n" if ended else ""))
        elif ended:
            self._stream.write(f"{line}\n")
        self._stream.flush()
