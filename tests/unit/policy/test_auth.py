"""API keys: who is asking, and may they."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from gateway.core.credential import Key, Principal, format_key, hash_key, index_keys
from gateway.core.error import Forbidden, GatewayError, InvalidRequest, Unauthorized
from gateway.core.message import Request
from gateway.core.route import Match, Route
from gateway.policy.auth import Auth, keys_of
from gateway.policy.key_source import KeySource
from gateway.policy.ticket import Tickets
from gateway.settings.policy import AuthPolicy
from gateway.telemetry.metric import Metrics
from tests.support.fakes import FakeClock, make_request
from tests.support.policy import Headers, NoKeys, Terminal, sample

KEY = format_key(b"alice's-key-for-the-tests")
READ_KEY = format_key(b"alice's-key-only-for-reads")
ADMIN_KEY = format_key(b"the-operator's-key-for-all")
EXPIRED_KEY = format_key(b"an-expired-key-of-alice's")
NEAR_KEY = format_key(b"alice's-key-for-one-network")
FOREIGN_KEY = "a-key-made-by-another-system"
UNKNOWN_KEY = format_key(b"nobody's-key-for-the-tests")


def entry(key: str, key_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": key_id, "hash": f"sha256:{hash_key(key)}", "owner": "alice", **fields}


ENTRIES = [
    entry(KEY, "k-all"),
    entry(READ_KEY, "k-read", scopes=["jobs:read"]),
    entry(ADMIN_KEY, "k-admin", scopes=["admin"], owner="root"),
    entry(NEAR_KEY, "k-near", networks=["10.0.0.0/8"]),
    entry(EXPIRED_KEY, "k-old", expires="2023-11-14T22:13:20Z"),
    {**entry(FOREIGN_KEY, "k-foreign"), "hash": hash_key(FOREIGN_KEY)},
]


class Gate:
    """The policy, what reached the handler behind it, and the request as it was left."""

    def __init__(self, metrics: Metrics, clock: FakeClock) -> None:
        self._metrics = metrics
        self._clock = clock
        self.terminal = Terminal()
        self.keys = KeySource(NoKeys(), metrics, clock)
        self.tickets = Tickets(bytes(32), 60.0, clock)

    async def ask(
        self,
        headers: Headers = (),
        *,
        route: str = "job-list",
        method: str = "GET",
        target: str = "/jobs",
        client: str = "192.0.2.7",
        **policy: Any,
    ) -> Request:
        settings = AuthPolicy.model_validate({"entries": ENTRIES, **policy})
        self.keys.listed = index_keys(keys_of(settings))
        auth = Auth(settings, self.keys, self.tickets, self._metrics, self._clock)
        match = Match(Route(route, "/jobs"))
        self.request = make_request(method, target, owner=None, headers=headers, match=match)
        self.request.client = client
        await auth(self.request, self.terminal)
        return self.request

    async def refused(self, headers: Headers = (), **given: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.ask(headers, **given)
        assert self.terminal.requests == []
        return caught.value


@pytest.fixture
def gate(metrics: Metrics, clock: FakeClock) -> Gate:
    return Gate(metrics, clock)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": KEY},
        {"x-api-key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY, "Authorization": f"Bearer {KEY}"},
    ],
)
async def test_a_valid_key_is_known_and_goes_no_further(gate: Gate, headers: Headers) -> None:
    request = await gate.ask(headers)

    assert request.principal is not None
    assert (request.principal.key_id, request.owner) == ("k-all", "alice")
    assert list(gate.terminal.headers) == []


async def test_a_hash_may_stand_without_its_prefix_and_a_key_come_from_elsewhere(
    gate: Gate,
) -> None:
    principal = (await gate.ask({"X-API-Key": FOREIGN_KEY})).principal

    assert principal is not None
    assert principal.key_id == "k-foreign"


async def test_another_authorization_passes_to_the_upstream_untouched(gate: Gate) -> None:
    for value in ("Basic YTpi", "Bearer eyJ.a.b", f"Bearer {FOREIGN_KEY}", "Bearer", ""):
        gate.terminal = Terminal()
        request = await gate.ask({"X-API-Key": KEY, "Authorization": value})

        assert request.headers.getall("Authorization") == [value]


async def test_a_key_in_another_header_is_read_where_the_file_says(gate: Gate) -> None:
    headers = {"X-Gateway-Key": KEY, "X-API-Key": "the upstream's"}
    request = await gate.ask(headers, keys={"header": "X-Gateway-Key"})

    assert request.principal is not None
    assert dict(request.headers) == {"X-API-Key": "the upstream's"}


async def test_a_bearer_key_is_none_where_the_file_says_so(gate: Gate) -> None:
    error = await gate.refused({"Authorization": f"Bearer {KEY}"}, keys={"bearer": False})

    assert isinstance(error, Unauthorized)
    assert error.headers["WWW-Authenticate"] == 'ApiKey realm="gateway"'
    assert "bearer" not in error.detail


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": UNKNOWN_KEY},
        {"X-API-Key": EXPIRED_KEY},
        {"X-API-Key": NEAR_KEY},
        {"X-API-Key": ""},
        {"X-API-Key": KEY.upper()},
        {"X-API-Key": hash_key(KEY)},
        {"Authorization": f"Bearer {UNKNOWN_KEY}"},
        {"Authorization": KEY},
    ],
)
async def test_no_valid_key_is_answered_alike_whatever_is_wrong(
    gate: Gate, headers: Headers
) -> None:
    error = await gate.refused(headers)

    assert isinstance(error, Unauthorized)
    assert error.headers == {"WWW-Authenticate": 'Bearer realm="gateway"'}
    assert error.detail == "Send a valid API key in the X-API-Key header, or as a bearer token."
    assert error.extra == {}


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {"credential": "missing"}),
        ({"X-API-Key": UNKNOWN_KEY}, {"credential": "unknown"}),
        ({"X-API-Key": EXPIRED_KEY}, {"credential": "expired", "refused_key_id": "k-old"}),
        ({"X-API-Key": NEAR_KEY}, {"credential": "wrong-network", "refused_key_id": "k-near"}),
    ],
)
async def test_the_access_line_tells_what_the_answer_does_not(
    gate: Gate, headers: Headers, fields: dict[str, str]
) -> None:
    await gate.refused(headers)

    assert gate.request.fields == fields


async def test_a_key_is_good_only_in_its_networks(gate: Gate) -> None:
    assert isinstance(await gate.refused({"X-API-Key": NEAR_KEY}), Unauthorized)

    request = await gate.ask({"X-API-Key": NEAR_KEY}, client="10.1.2.3")

    assert request.principal is not None


async def test_a_key_ends_when_it_expires(gate: Gate, clock: FakeClock) -> None:
    clock.at -= 1

    assert (await gate.ask({"X-API-Key": EXPIRED_KEY})).principal is not None


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": KEY}])
@pytest.mark.parametrize("target", [f"/jobs?api_key={READ_KEY}", f"/jobs/{READ_KEY}?x"])
async def test_a_key_in_the_url_is_refused_and_not_repeated(
    gate: Gate, target: str, headers: Headers
) -> None:
    error = await gate.refused(headers, target=target)

    assert isinstance(error, InvalidRequest)
    assert READ_KEY not in error.detail


async def test_another_parameter_is_no_key(gate: Gate) -> None:
    assert isinstance(await gate.refused(target="/jobs?api_key=gw_short"), Unauthorized)


@pytest.mark.parametrize(
    "headers",
    [
        [("X-API-Key", KEY), ("x-api-key", KEY)],
        [("X-API-Key", KEY), ("X-API-Key", UNKNOWN_KEY)],
        [("X-API-Key", KEY), ("Authorization", f"Bearer {READ_KEY}")],
        [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")],
    ],
)
@pytest.mark.parametrize("public", [(), [{"path": "/jobs"}]])
async def test_more_than_one_credential_is_an_invalid_request(
    gate: Gate, headers: Headers, public: Any
) -> None:
    error = await gate.refused(headers, public=public)

    assert isinstance(error, InvalidRequest)
    assert KEY not in error.detail


@pytest.mark.parametrize(
    "headers",
    [
        {"Connection": "X-Api-Key", "X-API-Key": KEY},
        {"Connection": "close, authorization", "Authorization": f"Bearer {KEY}"},
    ],
)
async def test_a_key_that_connection_lists_is_absent(gate: Gate, headers: Headers) -> None:
    assert isinstance(await gate.refused(headers), Unauthorized)


@pytest.mark.parametrize(
    ("route", "status"),
    [
        ("job-create", 403),
        ("job-cancel", 403),
        ("webhooks", 403),
        ("upstream-admin", 403),
        ("job-status", 200),
        ("job-events", 200),
        ("other", 200),
    ],
)
async def test_a_route_needs_its_scope(gate: Gate, route: str, status: int) -> None:
    if status == 200:
        await gate.ask({"X-API-Key": READ_KEY}, route=route)
        assert len(gate.terminal.requests) == 1
    else:
        error = await gate.refused({"X-API-Key": READ_KEY}, route=route)
        assert isinstance(error, Forbidden)


@pytest.mark.parametrize("route", ["job-create", "webhooks", "upstream-admin", "job-list"])
async def test_admin_may_do_everything(gate: Gate, route: str) -> None:
    assert (await gate.ask({"X-API-Key": ADMIN_KEY}, route=route)).owner == "root"


@pytest.mark.parametrize("scopes", [["jobs:read"], []])
async def test_the_upstreams_administration_needs_admin_whatever_the_file_says(
    gate: Gate, scopes: list[str]
) -> None:
    error = await gate.refused(
        {"X-API-Key": READ_KEY}, route="upstream-admin", scopes={"upstream-admin": scopes}
    )

    assert "admin" in error.detail


async def test_any_one_of_a_routes_scopes_suffices(gate: Gate) -> None:
    scopes = {"job-create": ["special", "jobs:read"]}

    await gate.ask({"X-API-Key": READ_KEY}, route="job-create", scopes=scopes)

    assert len(gate.terminal.requests) == 1


async def test_a_route_may_need_no_scope(gate: Gate) -> None:
    await gate.ask({"X-API-Key": READ_KEY}, route="webhooks", scopes={"webhooks": []})

    assert len(gate.terminal.requests) == 1


PUBLIC = [{"methods": ["GET"], "path": "/jobs"}, {"path": "/static/*"}, {"path": "/r/{id}"}]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/jobs"),
        ("HEAD", "/jobs"),
        ("GET", "/jobs?x=1"),
        ("DELETE", "/static/a/b"),
        ("GET", "/r/1"),
        ("OPTIONS", "/jobs/1"),
    ],
)
async def test_a_public_request_needs_no_key(gate: Gate, method: str, target: str) -> None:
    assert (await gate.ask(method=method, target=target, public=PUBLIC)).principal is None


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/jobs"), ("GET", "/jobs/"), ("GET", "/jobs/1"), ("GET", "/r/1/2")],
)
async def test_a_request_beside_the_public_ones_needs_a_key(
    gate: Gate, method: str, target: str
) -> None:
    assert isinstance(await gate.refused(method=method, target=target, public=PUBLIC), Unauthorized)


async def test_an_invalid_key_on_a_public_route_is_removed_and_ignored(gate: Gate) -> None:
    request = await gate.ask({"X-API-Key": UNKNOWN_KEY}, public=PUBLIC)

    assert request.principal is None
    assert list(gate.terminal.headers) == []


async def test_a_valid_key_on_a_public_route_is_known(gate: Gate) -> None:
    assert (await gate.ask({"X-API-Key": KEY}, public=PUBLIC)).owner == "alice"


async def test_shadow_mode_logs_counts_and_lets_through(gate: Gate, metrics: Metrics) -> None:
    with structlog.testing.capture_logs() as lines:
        request = await gate.ask({"X-API-Key": UNKNOWN_KEY}, mode="shadow")

    assert request.principal is None
    assert list(request.headers) == []
    assert [(line["event"], line["problem"]) for line in lines] == [("auth_shadow", "unauthorized")]
    assert sample(metrics, "auth_decisions_total", decision="shadow") == 1


async def test_decisions_are_counted(gate: Gate, metrics: Metrics) -> None:
    await gate.refused()
    await gate.refused({"X-API-Key": READ_KEY}, route="webhooks")
    await gate.ask({"X-API-Key": KEY})

    for decision in ("unauthorized", "forbidden", "admitted"):
        assert sample(metrics, "auth_decisions_total", decision=decision) == 1


async def test_switched_off_no_key_is_needed_but_one_is_known_and_removed(gate: Gate) -> None:
    assert (await gate.ask(enabled=False)).principal is None
    gate.terminal = Terminal()
    request = await gate.ask({"X-API-Key": KEY}, enabled=False, route="upstream-admin")

    assert (request.owner, list(request.headers)) == ("alice", [])


async def test_switched_off_only_our_keys_are_taken_from_the_upstream(gate: Gate) -> None:
    both = [("X-API-Key", "theirs"), ("X-API-Key", UNKNOWN_KEY), ("X-API-Key", FOREIGN_KEY)]

    request = await gate.ask(both, enabled=False)

    assert request.headers.getall("X-API-Key") == ["theirs"]


async def test_no_secret_is_in_an_error_or_a_log_line(gate: Gate) -> None:
    with structlog.testing.capture_logs() as lines:
        error = await gate.refused({"X-API-Key": UNKNOWN_KEY})
        await gate.ask({"X-API-Key": UNKNOWN_KEY}, mode="shadow")

    assert UNKNOWN_KEY not in f"{error.detail}{error.extra}{error.headers}{lines}"


@pytest.mark.parametrize("text", ["soon", "2027-01-31T00:00:00"])
def test_an_expiry_is_a_time_with_its_zone(text: str) -> None:
    settings = AuthPolicy.model_validate({"entries": [entry(KEY, "k", expires=text)]})

    with pytest.raises(ValueError, match=text):
        keys_of(settings)


async def test_keys_of_the_store_are_known_as_long_as_they_are_there(gate: Gate) -> None:
    key = Key("k-stored", hash_key(UNKNOWN_KEY), "bob", frozenset({"jobs:read"}), tier="gold")
    gate.keys.by_hash[key.sha256] = key

    principal = (await gate.ask({"X-API-Key": UNKNOWN_KEY})).principal
    assert principal == Principal("k-stored", "bob", frozenset({"jobs:read"}), "gold")
    gate.terminal = Terminal()
    await gate.refused({"X-API-Key": UNKNOWN_KEY}, keys={"source": ["file"]})

    del gate.keys.by_hash[key.sha256]
    await gate.refused({"X-API-Key": UNKNOWN_KEY})


async def test_keys_of_the_file_count_only_where_it_is_a_source(gate: Gate) -> None:
    await gate.refused({"X-API-Key": KEY}, keys={"source": ["store"]})


async def test_the_last_use_of_a_key_is_noted(gate: Gate, clock: FakeClock) -> None:
    await gate.refused({"X-API-Key": EXPIRED_KEY})
    await gate.ask({"X-API-Key": KEY})

    assert gate.keys.used == {"k-all": clock.at}


@pytest.mark.parametrize(
    ("key", "route", "scope"),
    [(KEY, "job-create", "jobs:write"), (ADMIN_KEY, "job-create", "admin"), (KEY, "other", "")],
)
async def test_the_scope_that_admitted_a_request_is_known(
    gate: Gate, key: str, route: str, scope: str
) -> None:
    assert (await gate.ask({"X-API-Key": key}, route=route)).scope == scope


@pytest.mark.parametrize(
    ("headers", "policy", "said"),
    [
        ({"X-API-Key": KEY}, {}, "admitted as alice with key k-all by the scope jobs:read"),
        ({"X-API-Key": EXPIRED_KEY}, {}, "401 unauthorized, key expired"),
        ({}, {"mode": "shadow"}, "401 unauthorized, key missing (shadow: let through)"),
        ({}, {"public": [{"path": "/jobs"}]}, "admitted without a key: the request is public"),
        ({}, {"enabled": False}, "switched off: nobody is asked for a key"),
    ],
)
def test_what_would_be_decided_is_told_without_counting(
    metrics: Metrics, clock: FakeClock, headers: Headers, policy: Any, said: str
) -> None:
    settings = AuthPolicy.model_validate({"entries": ENTRIES, **policy})
    keys = KeySource(NoKeys(), metrics, clock)
    keys.listed = index_keys(keys_of(settings))
    auth = Auth(settings, keys, Tickets(bytes(32), 60.0, clock), metrics, clock)
    match = Match(Route("job-list", "/jobs"))
    request = make_request("GET", "/jobs", owner=None, headers=headers, match=match)

    assert auth.explain(request) == said
    assert sample(metrics, "auth_decisions_total", decision="admitted") == 0
