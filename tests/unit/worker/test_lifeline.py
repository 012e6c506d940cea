"""Either side of a lifeline learns that the other is gone, however it went."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

from gateway.worker.lifeline import READY, Lifeline

# A worker whose main thread does nothing but wait.
_BLOCKED = """
import sys, time
from gateway.worker.lifeline import Lifeline
line = Lifeline(int(sys.argv[1]))
line.watch(lambda: None, 0.1)
line.tell_ready()
time.sleep(60)
"""


def test_the_parent_hears_that_it_serves_and_what_it_left() -> None:
    parent, worker = socket.socketpair()
    with parent:
        line = Lifeline(worker.detach())
        line.tell_ready()
        line.leave(b"# EOF\n")

        with parent.makefile("rb") as file:
            assert (file.readline(), file.read()) == (READY, b"# EOF\n")


def test_the_worker_hears_that_its_parent_is_gone() -> None:
    parent, worker = socket.socketpair()
    gone = threading.Event()
    line = Lifeline(worker.detach())
    line.watch(gone.set, 5.0)

    parent.close()

    assert gone.wait(5)
    line.leave(b"to nobody")  # which is no error, and the end of the wait


def test_a_worker_that_leaves_is_not_told_that_its_parent_is_gone() -> None:
    parent, worker = socket.socketpair()
    gone = threading.Event()
    line = Lifeline(worker.detach())
    line.watch(gone.set, 5.0)
    (watching,) = [each for each in threading.enumerate() if each.name == "lifeline"]

    line.leave(b"")
    parent.close()
    watching.join(5)

    assert not gone.is_set()


def test_a_worker_that_is_stuck_ends_all_the_same() -> None:
    parent, worker = socket.socketpair()
    with worker:
        process = subprocess.Popen(
            [sys.executable, "-c", _BLOCKED, str(worker.fileno())], pass_fds=[worker.fileno()]
        )
    try:
        assert parent.recv(len(READY)) == READY
        parent.close()
        assert process.wait(10) == 1
    finally:
        process.kill()
        process.wait()
