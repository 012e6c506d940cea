"""Stream tickets over HTTP: `POST /api/v1/jobs/{job_id}/ticket`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from gateway.core.contract import STREAM, Contract
from gateway.core.error import MethodNotAllowed, NotFound
from gateway.core.event import rfc3339
from gateway.core.message import Request, Response
from gateway.core.ticket import PARAMETER
from gateway.job.birth import UNKNOWN_OWNER
from gateway.policy.ticket import Tickets
from gateway.store.job import JobStore
from gateway.web.document import json_response
from gateway.web.jobs import PATH


@dataclass(frozen=True, slots=True)
class TicketApi:
    """Issues a ticket to who may see a job: its owner, or any key for a job that has none.

    Who needs no key, where none is asked for, gets addresses without a ticket.
    """

    jobs: JobStore
    tickets: Tickets
    contract: Contract

    async def handle(self, request: Request) -> Response:
        """Answer one request. Errors are `GatewayError`s."""
        if request.method != "POST":
            detail = f"{request.path} takes POST, not {request.method}."
            raise MethodNotAllowed(detail, headers={"Allow": "POST"})
        job_id = request.match.params["job_id"]
        job = await self.jobs.get(job_id)
        if job is None or job.owner not in (request.owner, UNKNOWN_OWNER):
            raise NotFound(f"There is no job {job_id}.")
        ticket, expires_at = None, None
        if request.principal is not None:
            ticket, expires_at = self.tickets.issue(job_id, request.principal)
        answer = {
            "ticket": ticket,
            "expires_at": None if expires_at is None else rfc3339(expires_at),
            "stream_url": _with(self.contract.path(STREAM, job_id), ticket),
            "events_url": _with(f"{PATH}/{quote(job_id, safe='')}/events", ticket),
        }
        response = json_response(201, answer)
        response.headers["Cache-Control"] = "no-store"
        return response


def _with(path: str | None, ticket: str | None) -> str | None:
    return path if path is None or ticket is None else f"{path}?{PARAMETER}={ticket}"
