"""`POST /api/v1/jobs/{job_id}/ticket`: who gets one, and what is in the answer."""

from __future__ import annotations

import pytest

from gateway.core.error import MethodNotAllowed, NotFound
from gateway.core.message import Response
from gateway.core.route import Match, Route
from gateway.core.ticket import unseal
from gateway.job.birth import UNKNOWN_OWNER
from gateway.policy.ticket import Tickets
from gateway.settings.contract import TICKET, compile_contract
from gateway.settings.job import JobContract
from gateway.web.ticket import TicketApi
from tests.support.fakes import document, make_request
from tests.support.job import CONTRACT
from tests.support.store import NOW, Stores, new_job, timeline_of

SECRET = bytes(32)


async def ask(
    stores: Stores, job_id: str = "a job/1", *, method: str = "POST", owner: str | None = "alice"
) -> Response:
    tickets = Tickets(SECRET, 60.0, lambda: NOW)
    contract = compile_contract(JobContract.model_validate(CONTRACT))
    match = Match(Route(TICKET, "/"), {"job_id": job_id})
    request = make_request(method, "/api/v1/jobs/x/ticket", owner=owner, match=match)
    return await TicketApi(stores.jobs, tickets, contract).handle(request)


async def add(stores: Stores, owner: str) -> None:
    change = new_job("a job/1", NOW, owner=owner)
    assert await stores.jobs.record(change, timeline_of(change), ())


@pytest.mark.parametrize("owner", ["alice", UNKNOWN_OWNER])
async def test_who_may_see_a_job_gets_a_ticket_and_where_to_show_it(
    stores: Stores, owner: str
) -> None:
    await add(stores, owner)
    response = await ask(stores)
    answer = document(response)
    ticket = answer["ticket"]
    assert response.status == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert answer == {
        "ticket": ticket,
        "expires_at": "2023-11-14T22:14:20.000Z",
        "stream_url": f"/jobs/a%20job%2F1/stream?ticket={ticket}",
        "events_url": f"/api/v1/jobs/a%20job%2F1/events?ticket={ticket}",
    }
    assert unseal(SECRET, ticket, "a job/1", NOW)


async def test_who_needs_no_key_needs_no_ticket(stores: Stores) -> None:
    await add(stores, "anonymous")
    answer = document(await ask(stores, owner=None))
    assert (answer["ticket"], answer["expires_at"]) == (None, None)
    assert answer["stream_url"] == "/jobs/a%20job%2F1/stream"


async def test_anothers_job_is_as_good_as_none(stores: Stores) -> None:
    await add(stores, "bob")
    for job_id in ("a job/1", "unknown"):
        with pytest.raises(NotFound, match=job_id):
            await ask(stores, job_id)


async def test_tickets_are_made_by_post(stores: Stores) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        await ask(stores, method="GET")
    assert caught.value.headers["Allow"] == "POST"
