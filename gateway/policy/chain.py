"""Policies as one handler."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, runtime_checkable

from gateway.core.message import Handler, Request, Response
from gateway.policy.base import Policy
from gateway.policy.step import Step


@runtime_checkable
class Repeatable(Protocol):
    """A policy, or the handler at the end, that can say what it does again for the same request."""

    def step(self, request: Request, response: Response) -> Step | None:
        """The step for requests like this one, which has just been answered; None if there is none.

        `request` is as the chain has left it, and belongs to the step from now on.
        """
        ...


class Chain:
    """A handler that walks the policies in order, the first outermost, and ends at `terminal`.

    Made once: a request creates nothing but one coroutine a policy.
    """

    def __init__(self, policies: Sequence[Policy], terminal: Handler) -> None:
        self._stations: tuple[object, ...] = (*policies, terminal)
        self.handle = compose(policies, terminal)

    def __call__(self, request: Request) -> Coroutine[Any, Any, Response]:
        """The answer to a request."""
        return self.handle(request)

    def steps(self, request: Request, response: Response) -> tuple[Step, ...] | None:
        """What is done again for requests like this one, outermost first, up to who answers.

        None when a policy must see each of them itself.
        """
        steps: list[Step] = []
        for station in self._stations:
            step = station.step(request, response) if isinstance(station, Repeatable) else None
            if step is None:
                return None
            steps.append(step)
            if step.answers:
                return tuple(steps)
        return None


def compose(policies: Sequence[Policy], terminal: Handler) -> Handler:
    """The policies around `terminal`, as one function."""
    handler = terminal
    for policy in reversed(policies):
        handler = _bound(policy, handler)
    return handler


def _bound(policy: Policy, call_next: Handler) -> Handler:
    decide = policy.__call__

    def handle(request: Request) -> Coroutine[Any, Any, Response]:
        return decide(request, call_next)

    return handle
