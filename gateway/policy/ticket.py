"""Stream tickets as this process issues and takes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gateway.core.contract import STREAM
from gateway.core.credential import Principal
from gateway.core.error import Forbidden, InvalidRequest, ServiceUnavailable
from gateway.core.message import Request
from gateway.core.ticket import TicketRefused, holds_ticket, seal, take_tickets, unseal
from gateway.settings.contract import EVENTS

_ROUTES = frozenset({STREAM, EVENTS})
_NONE = (
    "No stream tickets are issued here: replicas need a secret that they share. The operator sets "
    "jobs.tickets.secret_key, or webhooks.secret_key."
)


class Tickets:
    """`secret` signs them; without one there are none. Each holds for `lifetime_seconds`."""

    def __init__(
        self, secret: bytes | None, lifetime_seconds: float, now: Callable[[], float]
    ) -> None:
        self._secret = secret
        self._lifetime_seconds = lifetime_seconds
        self._now = now

    def issue(self, job_id: str, principal: Principal) -> tuple[str, int]:
        """A ticket, and when it ends (epoch seconds).

        Raises `ServiceUnavailable` without a secret.
        """
        if self._secret is None:
            raise ServiceUnavailable(_NONE)
        expires_at = math.ceil(self._now() + self._lifetime_seconds)
        return seal(self._secret, job_id, principal.key_id, expires_at), expires_at

    def take(self, request: Request) -> tuple[str, ...] | None:
        """The tickets of a request's URL, removed from it; None without any.

        One that stands elsewhere than it belongs comes as none: it opens nothing.
        """
        carried = take_tickets(request.query) if request.query else None
        if carried is not None:
            request.query = carried.rest
            request.target = f"{request.path}?{carried.rest}" if carried.rest else request.path
            return () if carried.is_misplaced else carried.tickets
        return () if holds_ticket(request.target) else None

    def key_id(self, request: Request, tickets: Sequence[str], given: Sequence[str]) -> str:
        """The id of the key that a request's ticket stands for; `given` are its keys.

        Raises `InvalidRequest` unless it is the one thing that says who asks, `Forbidden` for
        anything but reading a job's stream or events, and `TicketRefused`.
        """
        if len(tickets) != 1 or given:
            raise InvalidRequest(
                "A stream ticket stands once in a URL, as the parameter `ticket`, and nothing else "
                "says who asks."
            )
        if request.method != "GET" or request.match.name not in _ROUTES:
            request.fields["credential"] = "ticket-elsewhere"
            raise Forbidden(
                "A stream ticket opens its job's stream and events to GET, and nothing else; send "
                "a key."
            )
        if self._secret is None:
            raise TicketRefused("ticket-invalid")
        return unseal(self._secret, tickets[0], request.match.params["job_id"], self._now())
