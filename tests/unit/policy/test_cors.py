"""Which pages may read answers, decided by aiohttp-cors from the live policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.core.error import QuotaExceeded
from gateway.core.message import Handler, Response
from gateway.core.route import OTHER, Match, Route, RouteTable
from gateway.policy.base import Policy
from gateway.policy.chain import compose
from gateway.policy.cors import Cors
from gateway.settings.policy_browser import CorsPolicy
from gateway.telemetry.metric import Metrics
from gateway.web.problem import ProblemBoundary
from tests.support.fakes import document, make_request
from tests.support.policy import Terminal, answer, sample

APP = "https://app.example.com"
ROUTES = RouteTable([Route("job-status", "/jobs/{job_id}", frozenset({"GET"}))])
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "POST"}
UPSTREAM = {
    "Access-Control-Allow-Origin": "https://evil.example",
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Expose-Headers": "X-Theirs",
}
VARY = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


class Chain:
    """Cors, the problem boundary, and an upstream that says CORS headers of its own."""

    def __init__(self, terminal: Terminal | None = None, **policy: Any) -> None:
        self.terminal = terminal or Terminal(lambda: answer(headers=UPSTREAM))
        self.metrics = Metrics()
        policy.setdefault("origins", [APP])
        cors = Cors(CorsPolicy.model_validate(policy), ROUTES.match, self.metrics)
        policies: list[Policy] = [cors, ProblemBoundary()]
        self._handler: Handler = compose(policies, self.terminal)

    async def __call__(
        self, method: str = "GET", path: str = "/x", headers: Mapping[str, str] | None = None
    ) -> Response:
        match = ROUTES.match(method, path)
        return await self._handler(make_request(method, path, headers=headers or {}, match=match))

    def count(self, decision: str) -> float:
        return sample(self.metrics, "cors_decisions_total", decision=decision)


async def test_an_allowed_page_may_read_the_answer() -> None:
    chain = Chain()

    headers = (await chain(headers={"Origin": APP})).headers

    assert headers.getall("Access-Control-Allow-Origin") == [APP]
    assert "RateLimit" in headers["Access-Control-Expose-Headers"]
    assert "X-Theirs" not in headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in headers
    assert headers["Vary"] == "Origin"
    assert chain.count("allowed") == 1


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://app.example.com:8443",
        "http://app.example.com",
        "https://APP.example.com",
        "https://app.example.com/",
        "null",
        "",
    ],
)
async def test_any_other_page_may_not(origin: str) -> None:
    chain = Chain()

    headers = (await chain(headers={"Origin": origin})).headers

    assert [name for name in headers if name.startswith("Access-Control-")] == []
    assert headers["Vary"] == "Origin"
    assert chain.count("denied") == 1


@pytest.mark.parametrize("policy", [{"origins": ["*"]}, {"origins": ["*", "https://b.example"]}])
async def test_null_is_denied_even_where_any_origin_may(policy: dict[str, Any]) -> None:
    chain = Chain(**policy)

    assert "Access-Control-Allow-Origin" not in (await chain(headers={"Origin": "null"})).headers
    assert (await chain("OPTIONS", headers={**PREFLIGHT, "Origin": "null"})).status == 403
    allowed = (await chain(headers={"Origin": APP})).headers
    assert (allowed["Access-Control-Allow-Origin"], allowed["Vary"]) == (APP, "Origin")


async def test_two_origins_are_nobodys() -> None:
    cors = Cors(CorsPolicy(origins=(APP,)), ROUTES.match, Metrics())
    request = make_request("GET", "/x", headers=[("Origin", APP), ("Origin", "https://b.example")])

    response = await cors(request, Terminal())

    assert "Access-Control-Allow-Origin" not in response.headers


async def test_without_an_origin_the_upstreams_headers_go_and_caches_are_told() -> None:
    headers = (await Chain()()).headers

    assert dict(headers) == {"Vary": "Origin"}


async def test_an_answer_that_no_origin_changes_does_not_vary() -> None:
    headers = (await Chain(origins=[])()).headers

    assert dict(headers) == {}


async def test_a_vary_of_the_upstreams_is_kept_and_not_doubled() -> None:
    terminal = Terminal(lambda: answer(headers={"Vary": "Accept, origin"}))

    assert (await Chain(terminal)()).headers.getall("Vary") == ["Accept, origin"]


async def test_a_preflight_ends_here() -> None:
    chain = Chain(credentials=True, max_age="1h")

    wanted = {**PREFLIGHT, "Access-Control-Request-Headers": "x-api-key, content-type"}
    response = await chain("OPTIONS", headers=wanted)

    assert (response.status, chain.terminal.requests) == (204, [])
    headers = response.headers
    assert headers["Access-Control-Allow-Origin"] == APP
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Access-Control-Allow-Methods"] == "POST"
    assert set(headers["Access-Control-Allow-Headers"].split(",")) == {"X-API-KEY", "CONTENT-TYPE"}
    assert headers["Access-Control-Max-Age"] == "3600"
    assert headers["Vary"] == VARY
    assert "Content-Type" not in headers
    assert chain.count("preflight") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"Origin": "https://evil.example"},
        {"Access-Control-Request-Method": "PROPFIND"},
        {"Access-Control-Request-Method": "post"},
        {"Access-Control-Request-Headers": "X-Forwarded-For"},
    ],
)
async def test_a_preflight_for_more_than_is_allowed_is_denied_here(wrong: dict[str, str]) -> None:
    chain = Chain()

    response = await chain("OPTIONS", headers={**PREFLIGHT, **wrong})

    assert (response.status, chain.terminal.requests) == (403, [])
    assert document(response)["type"].endswith("foreign-origin")
    assert "Access-Control-Allow-Origin" not in response.headers
    assert chain.count("preflight-denied") == 1


@pytest.mark.parametrize("headers", [{}, {"Origin": APP}, {"Access-Control-Request-Method": "GET"}])
async def test_a_plain_options_passes(headers: dict[str, str]) -> None:
    chain = Chain()

    assert (await chain("OPTIONS", headers=headers)).status == 200
    assert len(chain.terminal.requests) == 1


async def test_a_route_has_figures_of_its_own() -> None:
    other = "https://status.example"
    chain = Chain(routes={"job-status": {"origins": [other], "methods": ["GET"]}})
    wanted = {"Origin": other, "Access-Control-Request-Method": "GET"}

    assert (await chain("OPTIONS", "/jobs/1", wanted)).status == 204
    assert (await chain("OPTIONS", "/x", wanted)).status == 403
    assert "Access-Control-Allow-Origin" in (await chain("GET", "/jobs/1", wanted)).headers
    assert "Access-Control-Allow-Origin" not in (await chain("GET", "/x", wanted)).headers


async def test_a_refusal_can_be_read_by_the_page() -> None:
    chain = Chain(Terminal(lambda: QuotaExceeded("slower")))

    response = await chain(headers={"Origin": APP})

    assert response.status == 429
    assert response.headers["Access-Control-Allow-Origin"] == APP


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://gateway.example:8443"])
async def test_a_websocket_from_a_foreign_page_never_reaches_the_upstream(origin: str) -> None:
    chain = Chain()

    response = await chain(headers={"Origin": origin, "Upgrade": "WebSocket"})

    assert (response.status, chain.terminal.requests) == (403, [])
    assert chain.count("websocket-denied") == 1


@pytest.mark.parametrize("origin", [APP, "https://gateway.example", "http://gateway.example", None])
async def test_a_websocket_of_our_own_pages_passes(origin: str | None) -> None:
    chain = Chain()
    headers = {"Upgrade": "websocket"} | ({"Origin": origin} if origin else {})

    assert (await chain(headers=headers)).status == 200


async def test_shadow_changes_nothing_and_counts() -> None:
    chain = Chain(mode="shadow")

    assert dict((await chain(headers={"Origin": "https://evil.example"})).headers) == UPSTREAM
    assert dict((await chain()).headers) == UPSTREAM
    assert (await chain("OPTIONS", headers=PREFLIGHT)).status == 200
    assert (await chain(headers={"Origin": "null", "Upgrade": "websocket"})).status == 200
    for decision in ("denied", "preflight", "websocket-denied"):
        assert chain.count(f"shadow-{decision}") == 1


async def test_switched_off_the_upstreams_headers_stand() -> None:
    chain = Chain(enabled=False)

    assert dict((await chain(headers={"Origin": APP})).headers) == UPSTREAM


async def test_a_preflight_of_a_refused_target_is_refused() -> None:
    cors = Cors(CorsPolicy(origins=(APP,)), ROUTES.match, Metrics())
    request = make_request("OPTIONS", "/", headers=PREFLIGHT, match=Match(OTHER))
    request.refusal = QuotaExceeded("no")
    handler = compose([cors, ProblemBoundary()], Terminal())

    assert (await handler(request)).status == 429


@pytest.mark.parametrize(
    ("method", "headers", "said"),
    [
        ("GET", {}, "no Origin"),
        ("GET", {"Origin": APP}, "may read"),
        ("GET", {"Origin": "https://evil.example"}, "may not read"),
        ("GET", {"Origin": "https://gateway.example"}, "of this host"),
        ("GET", {"Origin": "null", "Upgrade": "websocket"}, "403 foreign-origin"),
        ("OPTIONS", PREFLIGHT, "204 preflight"),
        ("OPTIONS", {**PREFLIGHT, "Origin": "null"}, "403: CORS preflight"),
    ],
)
async def test_it_explains_itself(method: str, headers: dict[str, str], said: str) -> None:
    metrics = Metrics()
    cors = Cors(CorsPolicy(origins=(APP,)), ROUTES.match, metrics)

    assert said in await cors.explain(make_request(method, "/x", headers=headers))
    assert metrics.registry.get_sample_value("gateway_cors_decisions_total") is None
