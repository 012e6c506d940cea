"""Running a coroutine without a task for as long as it does not really wait.

As Python 3.12's eager tasks do, but without the task: most requests are answered at once, and a
task costs as much as several policies. Until it waits for the first time the coroutine runs in no
task, so that what asks for the current one (`asyncio.timeout`) must not come before that.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@coroutine
def resume(work: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Go on, within a task, with `work` that was begun by `send(None)` and waits for `waits_for`.

    What the task throws in while it waits (a cancellation) is thrown into `work`.
    """
    try:
        while True:
            try:
                sent = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is meant for `work`
                waits_for = work.throw(error)
            else:
                waits_for = work.send(sent)
    except StopIteration as done:
        value: T = done.value
        return value
