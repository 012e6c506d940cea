"""What a policy does again for a request that came before, byte for byte, on one connection.

Clients that poll send the same head again and again, and of such a request most is known: whose key
it is, which limits count it, where its answer is stored. A policy that can says so with a `Step`:
what must still hold, what is counted again, and what differs in the answer. See `web/course.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from multidict import istr

from gateway.core.error import GatewayError
from gateway.core.message import Response

Answer = Response | GatewayError


class Step:
    """A policy's part of a request's course; this one does nothing.

    A step must do exactly what its policy would, or not be ready. Methods that a step does not
    override cost nothing. Times are epoch seconds.
    """

    __slots__ = ()
    # Fields of the answer that differ from one time to the next, with what gives their value after
    # `enter`; of a list field that several steps set, the outer one's members come first.
    varying: Mapping[istr, Callable[[], str]] = {}
    # True for a step that answers by itself: none further in is asked, and the answer is the one
    # that was given before, but for what varies.
    answers: ClassVar[bool] = False

    # The request's fields, lower-cased, that the policy looks at; None: it may be any. Requests
    # that differ in others alone are the same to it.
    reads: frozenset[str] | None = None

    def is_ready(self, at: float) -> bool:  # noqa: ARG002 - for steps that depend on it
        """True while the policy would decide as before; counts and changes nothing."""
        return True

    def enter(self, at: float) -> None:
        """Decide once more: count, and note what is told of it."""

    async def leave(self, answer: Answer) -> Answer:
        """What the policy makes of an answer it has not seen before; one it has is sent again."""
        return answer

    def done(self, at: float, status: int, size: int) -> None:
        """The answer is out, at `at`, with `size` bytes of body; not after `leave`."""

    def left(self) -> None:
        """The client went before there was an answer."""


class Indifferent(Step):
    """Of a policy that looks at no field of the request."""

    __slots__ = ()
    reads = frozenset()


NOTHING = Indifferent()
