"""Log lines that nobody waits for."""

from __future__ import annotations

import io
import os
import select
import threading
from pathlib import Path

import pytest

from gateway.telemetry import sink
from gateway.telemetry.sink import BackgroundStream, SharedStream


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


def test_lines_of_several_processes_do_not_break_into_each_other() -> None:
    readable, writable = os.pipe()
    stream = SharedStream(writable)
    pieces: list[bytes] = []
    reader = threading.Thread(
        target=lambda: pieces.extend(iter(lambda: os.read(readable, 512), b""))
    )
    reader.start()
    lines = [f"{number} {'x' * (number * 37 % 900)}\n" for number in range(400)]
    lines.append("y" * 3 * select.PIPE_BUF + "\n")
    written: list[bytes] = []

    with pytest.MonkeyPatch.context() as patch:
        write = os.write

        def noted(descriptor: int, data: bytes) -> int:
            written.append(data)
            return write(descriptor, data)

        patch.setattr(os, "write", noted)
        stream.write("".join(lines))
    os.close(writable)
    reader.join(5)
    os.close(readable)

    assert b"".join(pieces).decode() == "".join(lines)
    assert all(each.endswith(b"\n") for each in written)
    assert [len(each) for each in written if len(each) > select.PIPE_BUF] == [
        3 * select.PIPE_BUF + 1
    ]
    assert len(written) < len(lines) / 4  # many lines at a time


def test_a_file_is_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        assert not SharedStream(file.fileno()).isatty()
