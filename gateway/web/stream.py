"""A job's stream for many clients, from the one observation of the job that the gateway makes."""

from __future__ import annotations

import re

from multidict import CIMultiDict

from gateway.core.header import accepts
from gateway.core.message import Request, Response
from gateway.job.broadcast import EVENT_STREAM, Broadcasts
from gateway.policy.auth import TICKET_CREDENTIAL

PLAIN = "text/plain"
_NUMBER = re.compile(r"[0-9]{1,15}")
_QUERY = re.compile(r"last_event_id=([0-9]{1,15})")
# With these the upstream itself may judge who asks: that is not for the gateway to answer.
_CREDENTIALS = ("Authorization", "Cookie")


class FanOut:
    """Serves the streams of jobs that are observed; any other is the upstream's to serve."""

    def __init__(self, broadcasts: Broadcasts) -> None:
        self._broadcasts = broadcasts

    def answer(self, request: Request, job_id: str) -> Response | None:
        """The job's stream; None when the upstream must be asked.

        204 for a browser that comes back to a job whose end it has seen: it then stays away (HTML,
        section 9.2.3).
        """
        if not _is_plain(request):
            return None
        last = _last_event_id(request)
        if last is not None and self._broadcasts.has_seen_end(job_id, last):
            return Response(204)
        feed = self._broadcasts.join(job_id, last)
        if feed is None:
            return None
        headers = CIMultiDict(
            {"Content-Type": self._type(request), "Cache-Control": "no-cache", "Vary": "Accept"}
        )
        return Response(200, headers, feed)

    def _type(self, request: Request) -> str:
        """What was asked for by name, as browsers do; else what the upstream says."""
        accepted = ",".join(request.headers.getall("Accept", ()))
        for kind in (EVENT_STREAM, PLAIN):
            if accepts(accepted, kind):
                return f"{kind}; charset=utf-8"
        return self._broadcasts.content_type


def _is_plain(request: Request) -> bool:
    """True when nothing about the request could change what the upstream answers."""
    if request.method != "GET" or not request.body.is_empty:
        return False
    if request.query and not _QUERY.fullmatch(request.query):
        return False
    if request.fields.get("credential") == TICKET_CREDENTIAL:
        return True  # a browser's cookies say nothing more: the ticket is for this very stream
    return not any(name in request.headers for name in _CREDENTIALS)


def _last_event_id(request: Request) -> int | None:
    """The event a client saw last; None for a newcomer, or for an id that is not ours.

    A browser's first request cannot carry the header: the query may say it instead.
    """
    said = request.headers.get("Last-Event-ID", "")
    if not said and (asked := _QUERY.fullmatch(request.query)):
        said = asked[1]
    return int(said) if _NUMBER.fullmatch(said) else None
