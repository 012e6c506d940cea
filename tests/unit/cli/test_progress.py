"""The progress bar: drawn over itself on a terminal, one line elsewhere."""

from __future__ import annotations

import io

import pytest

from gateway.cli.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_sees_each_step_over_the_one_before() -> None:
    stream = Terminal()
    bar = ProgressBar("v1 up", stream)
    bar.show(5_000, 10_000, ", 1 changed")
    bar.show(10_000, 10_000, ", 2 changed", ended=True)
    first, second = stream.getvalue().split("\r\x1b[K")[1:]
    assert first == f"v1 up  {'█' * 15}{'░' * 15}  50%  5,000 of 10,000 documents, 1 changed"
    assert second == f"v1 up  {'█' * 30} 100%  10,000 of 10,000 documents, 2 changed\n"


def test_log_has_the_last_line_alone() -> None:
    stream = io.StringIO()
    bar = ProgressBar("v1 up", stream)
    bar.show(1, 2)
    assert stream.getvalue() == ""
    bar.show(2, 2, ended=True)
    assert stream.getvalue() == f"v1 up  {'█' * 30} 100%  2 of 2 documents\n"


@pytest.mark.parametrize(("done", "total"), [(0, 0), (3, 2)])
def test_table_that_is_empty_or_grew_is_done_wholly(done: int, total: int) -> None:
    stream = io.StringIO()
    ProgressBar("v1 up", stream).show(done, total, ended=True)
    assert f"100%  {done} of {done} documents" in stream.getvalue()
