"""Policies as one handler."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.message import Handler, Request, Response
from gateway.policy.base import Policy


def compose(policies: Sequence[Policy], terminal: Handler) -> Handler:
    """A handler that walks the policies in order, the first outermost, and ends at `terminal`.

    Made once: a request creates nothing but the coroutines it runs.
    """
    handler = terminal
    for policy in reversed(policies):
        handler = _bound(policy, handler)
    return handler


def _bound(policy: Policy, call_next: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        return await policy(request, call_next)

    return handle
