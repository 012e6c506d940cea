"""What the admin listener passes on to a worker: keys, webhooks and all else that is in the store.

The workers share it, and tell each other of changes, so any one of them will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import aiohttp
from aiohttp import web

from gateway.core.error import ServiceUnavailable
from gateway.worker.member import Member, Silent

CLIENT = "X-Gateway-Client"  # who asks, on the control socket alone
_SECONDS = 60.0
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "server", "date"}
)


class Desk:
    """Asks the first of the members that `answering` gives."""

    def __init__(self, answering: Callable[[], Sequence[Member]]) -> None:
        self._answering = answering

    def routes(self) -> list[web.RouteDef]:
        """For the end of the admin listener's application: whatever nothing before it takes."""
        return [web.route("*", "/{path:.*}", self.pass_on)]

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """A worker's answer. Raises ServiceUnavailable."""
        answering = self._answering()
        if not answering:
            raise ServiceUnavailable("No worker serves at the moment; try again in a second.")
        member = answering[0]
        body = await request.read()
        headers = _end_to_end(request.headers)
        headers = [item for item in headers if item[0].lower() != CLIENT.lower()]
        headers.append((CLIENT, request.remote or ""))
        given = {"data": body or None, "headers": headers}
        async with AsyncExitStack() as stack:
            try:
                asked = member.ask(request.method, request.raw_path, _SECONDS, **given)
                answer = await stack.enter_async_context(asked)
            except Silent as error:
                raise ServiceUnavailable(
                    f"Worker {member.slot} broke off; what it was asked for may have been done."
                ) from error
            return await _copy(request, answer)


async def _copy(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """The answer as it comes; raises ConnectionError when the client has left."""
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in _end_to_end(answer.headers):
        response.headers.add(name, value)
    await response.prepare(request)
    async for piece in answer.content.iter_any():
        await response.write(piece)
    await response.write_eof()
    return response


def _end_to_end(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [item for item in headers.items() if item[0].lower() not in _HOP_BY_HOP]
