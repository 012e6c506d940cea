"""Stream tickets: what a browser's `EventSource`, which can send no key, shows instead.

A ticket says which key asked for it and until when it holds, and is signed with the job's id: it
opens that job's stream and nothing else. It is no secret of the store's: whoever has the secret can
tell a good one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from urllib.parse import unquote

import orjson

PARAMETER = "ticket"
PREFIX = "gwt_"
_TICKET = re.compile(r"gwt_([0-9]{1,12})\.([A-Za-z0-9_-]{1,512})\.([A-Za-z0-9_-]{43})")
_CONTEXT = "gateway stream ticket, version 1"


class TicketRefused(Exception):
    """A ticket that opens nothing; `reason` is a word for the access line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Carried:
    """What a query held: its `rest`, the `tickets`, and whether one stood where none belongs."""

    rest: str
    tickets: tuple[str, ...]
    is_misplaced: bool = False


def derive_secret(secret: bytes) -> bytes:
    """A secret for tickets alone, from one that signs other things too."""
    return hmac.digest(secret, _CONTEXT.encode(), hashlib.sha256)


def seal(secret: bytes, job_id: str, key_id: str, expires_at: int) -> str:
    """The ticket for one job of who has this key; `expires_at` is epoch seconds."""
    mark = _encode(_signature(secret, job_id, key_id, expires_at))
    return f"{PREFIX}{expires_at}.{_encode(key_id.encode())}.{mark}"


def unseal(secret: bytes, ticket: str, job_id: str, now: float) -> str:
    """The id of the key that a ticket stands for, at this job. Raises `TicketRefused`."""
    found = _TICKET.fullmatch(ticket)
    if found is None:
        raise TicketRefused("ticket-malformed")
    try:
        key_id = _decode(found[2]).decode()
    except ValueError:
        raise TicketRefused("ticket-malformed") from None
    expires_at = int(found[1])
    # By its whole text: the last digit of a part has spare bits, and numbers may begin with zeros,
    # which would make several of one ticket.
    if not hmac.compare_digest(seal(secret, job_id, key_id, expires_at), ticket):
        raise TicketRefused("ticket-invalid")
    if now >= expires_at:
        raise TicketRefused("ticket-expired")
    return key_id


def take_tickets(query: str) -> Carried | None:
    """The tickets in a query, however they are spelled, and what is left of it; None without any.

    A parameter that holds one under another name is taken out as well.
    """
    if PREFIX not in query and ("%" not in query or PREFIX not in unquote(query)):
        return None
    rest, tickets, is_misplaced = [], [], False
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if PREFIX not in unquote(pair):
            rest.append(pair)
        elif unquote(name) == PARAMETER and unquote(value).startswith(PREFIX):
            tickets.append(unquote(value))
        else:
            is_misplaced = True
    return Carried("&".join(rest), tuple(tickets), is_misplaced)


def holds_ticket(text: str) -> bool:
    """True when a whole ticket stands somewhere in a text where none belongs, such as a path."""
    return PREFIX in text and _TICKET.search(text) is not None


def _signature(secret: bytes, job_id: str, key_id: str, expires_at: int) -> bytes:
    job = job_id.encode("utf-8", "surrogatepass").hex()
    signed = orjson.dumps([_CONTEXT, job, key_id, expires_at])
    return hmac.digest(secret, signed, hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Raises ValueError for what is no base64."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
