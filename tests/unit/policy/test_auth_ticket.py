"""A stream ticket admits to what its key may see of one job, and to nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.contract import CANCEL, DETAILS, STATUS, STREAM
from gateway.core.credential import Key, format_key, hash_key, index_keys
from gateway.core.error import (
    Forbidden,
    GatewayError,
    InvalidRequest,
    ServiceUnavailable,
    Unauthorized,
)
from gateway.core.message import Request
from gateway.core.route import Match, Route
from gateway.policy.auth import Auth, keys_of
from gateway.policy.key_source import KeySource
from gateway.policy.ticket import Tickets
from gateway.settings.contract import EVENTS, TICKET
from gateway.settings.policy import AuthPolicy
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, make_request
from tests.support.policy import NoKeys, Terminal

LIFETIME_SECONDS = 60.0
KEY = format_key(b"a-key-that-asks-for-tickets")


class Gate:
    """The policy, with one key in its file and one in the store."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.terminal = Terminal()
        self.keys = KeySource(NoKeys(), Metrics(), clock)
        self.stored = self._key("stored")
        self.keys.by_hash[self.stored.sha256] = self.keys.by_id["stored"] = self.stored
        self.tickets = Tickets(bytes(32), LIFETIME_SECONDS, clock)

    def _key(self, key_id: str) -> Key:
        return Key(key_id, hash_key(key_id), "alice", frozenset({"jobs:read"}))

    def issue(self, job_id: str = "j1", key_id: str = "filed") -> str:
        return self.tickets.issue(job_id, self._key(key_id).principal)[0]

    async def ask(
        self,
        query: str,
        *,
        route: str = STREAM,
        method: str = "GET",
        job_id: str = "j1",
        path: str = "/jobs/j1/stream",
        headers: dict[str, str] | None = None,
        scopes: tuple[str, ...] = ("jobs:read",),
        **policy: Any,
    ) -> Request:
        entry = {"id": "filed", "hash": hash_key(KEY), "owner": "alice", "scopes": list(scopes)}
        settings = AuthPolicy.model_validate({"entries": [entry], **policy})
        self.keys.listed = index_keys(keys_of(settings))
        auth = Auth(settings, self.keys, self.tickets, Metrics(), self.clock)
        match = Match(Route(route, path), {"job_id": job_id})
        self.request = make_request(
            method, f"{path}?{query}", owner=None, headers=headers or {}, match=match
        )
        await auth(self.request, self.terminal)
        return self.request

    async def refused(self, query: str, **given: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.ask(query, **given)
        assert self.terminal.requests == []
        assert "gwt_" not in self.request.target
        assert "gwt_" not in str(caught.value.detail)
        return caught.value


@pytest.fixture
def gate(clock: FakeClock) -> Gate:
    return Gate(clock)


@pytest.mark.parametrize("route", [STREAM, EVENTS])
@pytest.mark.parametrize("key_id", ["filed", "stored"])
async def test_it_stands_for_its_key_and_goes_no_further(
    gate: Gate, route: str, key_id: str
) -> None:
    ticket = gate.issue(key_id=key_id)
    request = await gate.ask(f"after=3&ticket={ticket}", route=route)
    assert request.principal is not None
    assert (request.principal.key_id, request.owner) == (key_id, "alice")
    assert (request.query, request.target) == ("after=3", "/jobs/j1/stream?after=3")
    assert request.fields["credential"] == "ticket"


async def test_alone_it_leaves_no_question_mark(gate: Gate) -> None:
    request = await gate.ask(f"ticket={gate.issue()}")
    assert (request.query, request.target) == ("", "/jobs/j1/stream")


async def test_it_ends_when_it_said(gate: Gate) -> None:
    ticket = gate.issue()
    gate.clock.at += LIFETIME_SECONDS + 1
    error = await gate.refused(f"ticket={ticket}")
    assert isinstance(error, Unauthorized)
    assert "WWW-Authenticate" in error.headers
    assert gate.request.fields["credential"] == "ticket-expired"


async def test_it_opens_no_other_job(gate: Gate) -> None:
    error = await gate.refused(f"ticket={gate.issue()}", job_id="j2")
    assert isinstance(error, Unauthorized)
    assert gate.request.fields["credential"] == "ticket-invalid"


@pytest.mark.parametrize(
    ("route", "method"),
    [
        (STATUS, "GET"),
        (DETAILS, "GET"),
        (CANCEL, "DELETE"),
        (TICKET, "POST"),
        (STREAM, "POST"),
        (STREAM, "HEAD"),
        (EVENTS, "DELETE"),
        ("other", "GET"),
    ],
)
async def test_it_opens_no_other_route(gate: Gate, route: str, method: str) -> None:
    error = await gate.refused(f"ticket={gate.issue()}", route=route, method=method)
    assert isinstance(error, Forbidden)
    assert gate.request.fields["credential"] == "ticket-elsewhere"


async def test_one_that_was_tampered_with_opens_nothing(gate: Gate) -> None:
    ticket = gate.issue()
    error = await gate.refused(f"ticket={ticket[:-1]}{'A' if ticket[-1] != 'A' else 'E'}")
    assert isinstance(error, Unauthorized)


@pytest.mark.parametrize("how", ["revoked", "gone"])
async def test_a_revoked_key_takes_its_tickets_along(gate: Gate, how: str) -> None:
    ticket = gate.issue(key_id="stored")
    if how == "gone":
        del gate.keys.by_id["stored"]
    else:
        gate.keys.by_id["stored"] = replace(gate.stored, revoked_at=gate.clock())
    error = await gate.refused(f"ticket={ticket}")
    assert isinstance(error, Unauthorized)
    assert gate.request.fields["credential"] == "ticket-orphaned"


async def test_a_key_bound_to_a_network_binds_its_tickets(gate: Gate) -> None:
    gate.keys.by_id["stored"] = replace(gate.stored, networks=("10.0.0.0/8",))
    assert isinstance(await gate.refused(f"ticket={gate.issue(key_id='stored')}"), Unauthorized)


async def test_it_has_no_more_scopes_than_its_key_has_now(gate: Gate) -> None:
    assert isinstance(await gate.refused(f"ticket={gate.issue()}", scopes=("webhooks",)), Forbidden)


@pytest.mark.parametrize("key", [KEY, "gw_" + "0" * 48])
async def test_beside_a_key_it_is_not_known_who_asks(gate: Gate, key: str) -> None:
    error = await gate.refused(f"ticket={gate.issue()}", headers={"X-API-Key": key})
    assert isinstance(error, InvalidRequest)


async def test_two_are_one_too_many(gate: Gate) -> None:
    error = await gate.refused(f"ticket={gate.issue()}&ticket={gate.issue()}")
    assert isinstance(error, InvalidRequest)


async def test_under_another_name_it_is_refused(gate: Gate) -> None:
    assert isinstance(await gate.refused(f"token={gate.issue()}"), InvalidRequest)


async def test_in_a_path_it_is_refused(gate: Gate) -> None:
    path = f"/jobs/{gate.issue()}"
    with pytest.raises(InvalidRequest):
        await gate.ask("", path=path)
    assert gate.terminal.requests == []


@pytest.mark.parametrize("policy", [{"enabled": False}, {"mode": "shadow"}])
async def test_where_no_key_is_asked_for_it_is_taken_out_all_the_same(
    gate: Gate, policy: dict[str, Any]
) -> None:
    request = await gate.ask("ticket=gwt_1.x.y&a=1", **policy)
    assert request.principal is None
    assert request.target == "/jobs/j1/stream?a=1"
    request = await gate.ask(f"ticket={gate.issue()}", **policy)
    assert request.principal is not None


async def test_a_parameter_of_that_name_may_be_the_upstreams(gate: Gate) -> None:
    headers = {"X-API-Key": KEY}
    request = await gate.ask("ticket=42", route=STATUS, headers=headers)
    assert request.query == "ticket=42"


def test_without_a_secret_none_are_issued(clock: FakeClock) -> None:
    tickets = Tickets(None, LIFETIME_SECONDS, clock)
    principal = Key("k", "0", "alice", frozenset()).principal
    with pytest.raises(ServiceUnavailable, match=r"jobs\.tickets\.secret_key"):
        tickets.issue("j1", principal)


async def test_without_a_secret_none_are_taken(gate: Gate) -> None:
    ticket = gate.issue()
    gate.tickets = Tickets(None, LIFETIME_SECONDS, gate.clock)
    assert isinstance(await gate.refused(f"ticket={ticket}"), Unauthorized)
