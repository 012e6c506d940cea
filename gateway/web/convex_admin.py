"""`/convex/dead` on the admin listener: what Convex refused, for operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from gateway.core.error import InvalidRequest
from gateway.core.event import rfc3339
from gateway.core.outbox import Delivery
from gateway.delivery.dead_letter import DeadLetters
from gateway.web.admin_key import AdminKey
from gateway.web.document import json_response, parse_object
from gateway.web.query import Query

_NOT_STORED = {"Cache-Control": "no-store"}
_ONE_OF = 'Send {"id": "dlv_…"} for one dead letter, or {"all": true}.'
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ConvexDesk:
    """What operators can do with dead letters. Every error is a `GatewayError`."""

    letters: DeadLetters

    async def dead(self, raw_query: str) -> Document:
        """A page of dead letters, newest first."""
        query = Query(raw_query, ("cursor", "limit"))
        page, cursor = await self.letters.page(query.text("cursor"), query.limit())
        return {"dead": [_letter(each) for each in page], "next_cursor": cursor}

    async def replay(self, document: Mapping[str, Any]) -> Document:
        """Send one again, or all."""
        match dict(document):
            case {"all": True, **rest} if not rest:
                sent, lost = await self.letters.replay_all()
                return {"replayed": sent, "no_longer_kept": lost}
            case {"id": str(message_id), **rest} if not rest:
                await self.letters.replay(message_id)
                return {"replayed": 1, "no_longer_kept": 0}
        raise InvalidRequest(_ONE_OF)


class ConvexAdmin:
    """The desk over HTTP, for whoever has a key with the scope `admin`."""

    def __init__(self, desk: ConvexDesk, callers: AdminKey) -> None:
        self._desk = desk
        self._callers = callers

    def routes(self) -> list[web.RouteDef]:
        """For the admin listener's application."""
        return [
            web.get("/convex/dead", self._dead),
            web.post("/convex/replay", self._replay),
        ]

    async def _dead(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        return _sent(200, await self._desk.dead(request.query_string))

    async def _replay(self, request: web.Request) -> web.Response:
        self._callers.caller(request)
        return _sent(202, await self._desk.replay(parse_object(await request.read())))


def _letter(delivery: Delivery) -> Document:
    message = delivery.message
    last = delivery.attempts[-1] if delivery.attempts else None
    ended = delivery.finished_at
    return {
        "id": message.id,
        "operation": message.kind,
        "job_id": message.job_id,
        "attempts": len(delivery.attempts),
        "ended_at": None if ended is None else rfc3339(ended),
        "error_kind": None if last is None else last.error_kind,
        "detail": "" if last is None else last.detail,
    }


def _sent(status: int, document: Document) -> web.Response:
    response = json_response(status, document, _NOT_STORED)
    assert isinstance(response.body, bytes)
    return web.Response(status=status, headers=response.headers, body=response.body)
