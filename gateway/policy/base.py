"""What a policy is."""

from __future__ import annotations

from typing import Protocol

from gateway.core.message import Handler, Request, Response


class Policy(Protocol):
    """One thing that traffic may or must do.

    It answers itself, raises a `GatewayError`, or returns what `call_next` answers, changed or not.
    """

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """The answer to a request."""
        ...
