"""Policies as one handler."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from gateway.core.message import Handler, Request, Response
from gateway.policy.base import Policy


def compose(policies: Sequence[Policy], terminal: Handler) -> Handler:
    """A handler that walks the policies in order, the first outermost, and ends at `terminal`.

    Made once: a request creates nothing but one coroutine a policy.
    """
    handler = terminal
    for policy in reversed(policies):
        handler = _bound(policy, handler)
    return handler


def _bound(policy: Policy, call_next: Handler) -> Handler:
    decide = policy.__call__

    def handle(request: Request) -> Coroutine[Any, Any, Response]:
        return decide(request, call_next)

    return handle
