"""Log lines that nobody waits for."""

from __future__ import annotations

import io
import threading

import pytest

from gateway.telemetry import sink
from gateway.telemetry.sink import BackgroundStream


class Pipe(io.StringIO):
    """A stream whose reader stands still until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self.begun = threading.Event()

    def write(self, text: str, /) -> int:
        self.begun.set()
        assert self.let_go.wait(5)
        return super().write(text)


def test_lines_come_out_whole_and_in_order() -> None:
    out = io.StringIO()
    stream = BackgroundStream(out)
    for number in range(1000):
        stream.write(f"line {number}\n")
    stream.close()

    assert out.getvalue().splitlines() == [f"line {number}" for number in range(1000)]


def test_a_reader_that_stands_still_holds_nobody_up_and_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink, "MAX_WAITING_BYTES", 100)
    pipe = Pipe()
    stream = BackgroundStream(pipe)
    stream.write("x" * 99 + "\n")
    assert pipe.begun.wait(5)

    stream.write("y" * 99 + "\n")
    with pytest.raises(BlockingIOError, match="stands still"):
        stream.write("z\n")
    assert stream.dropped == 1
    assert stream.waiting_bytes == 100
    assert stream.stalled_seconds() > 0
    pipe.let_go.set()
    stream.close()

    assert stream.stalled_seconds() == 0
    assert pipe.getvalue() == "x" * 99 + "\n" + "y" * 99 + "\n"


def test_a_reader_that_is_gone_ends_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    stream = BackgroundStream(Gone())
    stream.write("lost\n")
    stream.close()

    assert stream.dropped == 1


def test_after_the_end_nothing_is_taken() -> None:
    stream = BackgroundStream(io.StringIO())
    stream.close()
    stream.close()
    with pytest.raises(OSError, match="stands still"):
        stream.write("late\n")
